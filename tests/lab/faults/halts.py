"""Bringing a reaper to a step of its cycle, and keeping it there for a moment.

Nothing in the reaper helps: what it waits for in that step is withheld from outside. A lock on a catalog
stops the observation, a full disk stops the audit log, a frozen server process of its own stops the
terminations, and the frozen server process of another session stops the confirmation.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Final

import psycopg

from reaper.telemetry import events
from tests.lab.judge.logs import INTENT, OUTCOME
from tests.lab.world.observe import LineCounter, signal, wait_until

from .supervised import SupervisedReaper
from .world import FaultWorld

_SOON: Final = 8.0
_LONGEST: Final = 1.2
_BLOCK: Final = 1024 * 1024
_POLL: Final = 0.001
_WAITS: Final = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"


class Step(StrEnum):
    """Where a reaper can be in its cycle."""

    CONNECT = "connecting"
    OBSERVE = "observing"
    INTEND = "logging intents: none on disk yet"
    TERMINATE = "terminating: intents on disk, signals on their way"
    CONFIRM = "confirming: signalled, not gone"
    SETTLE = "logging outcomes: gone, none on disk yet"
    REST = "resting"
    ANYWHERE = "anywhere"


Halt = Callable[[FaultWorld, SupervisedReaper], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def halted(world: FaultWorld, reaper: SupervisedReaper, step: Step) -> AsyncIterator[Step]:
    """Keep the reaper at this step; it is anywhere if it cannot be brought there."""
    halt = _HALTS[step](world, reaper)
    try:
        await halt.__aenter__()
    except (TimeoutError, psycopg.Error, OSError):
        # Another fault prevents that a cycle gets this far.
        yield Step.ANYWHERE
        return
    try:
        yield step
    finally:
        with suppress(psycopg.Error):
            await halt.__aexit__(None, None, None)


@contextmanager
def full_disk(disk: Path, room: int = 0) -> Iterator[None]:
    """Fill this disk but for some bytes."""
    path = disk / f"ballast-{room}-{os.urandom(4).hex()}"
    try:
        with path.open("wb", buffering=0) as ballast:
            _fill(ballast.fileno())
            ballast.truncate(max(0, ballast.tell() - room))
        yield
    finally:
        path.unlink(missing_ok=True)


def _fill(descriptor: int) -> None:
    size = _BLOCK
    while size:
        try:
            os.write(descriptor, b"\0" * size)
        except OSError as full:
            if full.errno != errno.ENOSPC:
                raise
            size //= 2


@asynccontextmanager
async def _anywhere(world: FaultWorld, _: SupervisedReaper) -> AsyncIterator[None]:
    await asyncio.sleep(world.dice.uniform(0, _LONGEST))
    yield


@asynccontextmanager
async def _connecting(world: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    """Reset its connection, and leave the next one without an answer."""
    known = len(reaper.log.named(events.SERVER_UNREACHABLE))
    world.proxy.reset()
    await wait_until(lambda: len(reaper.log.named(events.SERVER_UNREACHABLE)) > known, within=_SOON)
    world.proxy.stall()
    try:
        await asyncio.sleep(world.dice.uniform(0, 2 * _LONGEST))
        yield
    finally:
        world.proxy.restore()


@asynccontextmanager
async def _observing(world: FaultWorld, _: SupervisedReaper) -> AsyncIterator[None]:
    """Let its observation wait for a lock on the roles."""
    backends = await world.reaper_backends()
    async with world.admin(within=0) as admin, admin.transaction(), asyncio.timeout(_SOON):
        await admin.execute("LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        pid = backends[0].pid if backends else 0
        while not await (await admin.execute(_WAITS, (pid,))).fetchone():  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        yield


@asynccontextmanager
async def _intending(_: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    """Let it find no room for its intents."""
    with _no_room(reaper):
        await _next(reaper, events.AUDIT_FAILED)
        yield


@asynccontextmanager
async def _terminating(world: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    """Freeze its server process as soon as an intent is on disk and its outcome is not."""
    backends = await world.reaper_backends()
    if not backends:
        raise TimeoutError
    intents, outcomes = (LineCounter(reaper.audit, name.encode()) for name in (INTENT, OUTCOME))
    try:
        async with asyncio.timeout(_SOON):
            known = intents.count()
            while True:
                while intents.count() == known:  # noqa: ASYNC110 (a file cannot be awaited)
                    await asyncio.sleep(_POLL)
                signal(backends[0].pid, SIGSTOP)
                await asyncio.sleep(50 * _POLL)
                known = intents.count()
                if outcomes.count() < known:
                    break
                signal(backends[0].pid, SIGCONT)
        yield
    finally:
        signal(backends[0].pid, SIGCONT)


@asynccontextmanager
async def _confirming(world: FaultWorld, _: SupervisedReaper) -> AsyncIterator[None]:
    """Freeze the server process of a session that is about to be terminated."""
    with _frozen_leak(world) as pid:
        await wait_until(lambda: _has_pending(pid, SIGTERM), within=_SOON)
        yield


@asynccontextmanager
async def _settling(world: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    """Let a session end while there is no room for its outcome."""
    with _frozen_leak(world) as pid:
        await wait_until(lambda: _has_pending(pid, SIGTERM), within=_SOON)
        with _no_room(reaper):
            signal(pid, SIGCONT)
            await _next(reaper, events.AUDIT_FAILED)
            yield


@asynccontextmanager
async def _resting(_: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    known = reaper.cycles
    await wait_until(lambda: reaper.cycles > known, within=_SOON)
    yield


_HALTS: Final[Mapping[Step, Halt]] = {
    Step.CONNECT: _connecting,
    Step.OBSERVE: _observing,
    Step.INTEND: _intending,
    Step.TERMINATE: _terminating,
    Step.CONFIRM: _confirming,
    Step.SETTLE: _settling,
    Step.REST: _resting,
    Step.ANYWHERE: _anywhere,
}


@contextmanager
def _no_room(reaper: SupervisedReaper) -> Iterator[None]:
    if not reaper.own_disk:
        raise TimeoutError  # only a disk of its own may be filled
    with full_disk(reaper.disk):
        yield


async def _next(reaper: SupervisedReaper, name: str) -> None:
    known = len(reaper.log.named(name))
    await wait_until(lambda: len(reaper.log.named(name)) > known, within=_SOON)


@contextmanager
def _frozen_leak(world: FaultWorld) -> Iterator[int]:
    leaks = [each for each in world.clients.present if each.kind == "leaked" and not each.waiting]
    if not leaks:
        raise TimeoutError
    newest = max(leaks, key=lambda each: each.last.answered)
    signal(newest.pid, SIGSTOP)
    try:
        yield newest.pid
    finally:
        signal(newest.pid, SIGCONT)


def _has_pending(pid: int, number: int) -> bool:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            name, _, mask = line.partition(":")
            if name in {"SigPnd", "ShdPnd"} and int(mask, 16) & 1 << (number - 1):
                return True
    return False
