"""Faults of the reaper itself: ended or frozen at every step of its cycle, alone or with standbys.

The reaper is brought to a step of its cycle from outside, by withholding what it waits for there. A lock on a
catalog stops the observation, a full disk stops the audit log, a frozen server process of its own stops the
terminations, and the frozen server process of another session stops the confirmation.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Final

import psycopg

from reaper.telemetry import events
from tests.lab.judge.logs import INTENT, OUTCOME
from tests.lab.world.observe import LineCounter, signal, wait_until

from .rounds import Fault, fault
from .supervised import SupervisedReaper
from .world import LEASE, FaultWorld

_SOON: Final = 8.0
_RESTARTED: Final = 20.0
_LONGEST: Final = 1.2
_BLOCK: Final = 1024 * 1024
_POLL: Final = 0.001
_WAITS: Final = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"


class Step(StrEnum):
    """A step of a reaper's cycle."""

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
async def _halted(world: FaultWorld, reaper: SupervisedReaper, step: Step) -> AsyncIterator[Step]:
    """Keep the reaper at this step; ANYWHERE if it cannot be brought there."""
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
    size = _BLOCK
    try:
        with path.open("wb", buffering=0) as ballast:
            while size:
                try:
                    os.write(ballast.fileno(), b"\0" * size)
                except OSError as full:
                    if full.errno != errno.ENOSPC:
                        raise
                    size //= 2
            ballast.truncate(max(0, ballast.tell() - room))
        yield
    finally:
        path.unlink(missing_ok=True)


@asynccontextmanager
async def _anywhere(world: FaultWorld, _: SupervisedReaper) -> AsyncIterator[None]:
    await world.hold(0, _LONGEST)
    yield


@asynccontextmanager
async def _connecting(world: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    """Reset its connection, and leave the next one without an answer."""
    lost = _next(reaper, events.SERVER_UNREACHABLE)
    world.proxy.reset()
    await wait_until(lost, within=_SOON)
    world.proxy.stall()
    try:
        await world.hold(0, 2 * _LONGEST)
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
        await wait_until(_next(reaper, events.AUDIT_FAILED), within=_SOON)
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
    async with _frozen_leak(world):
        yield


@asynccontextmanager
async def _settling(world: FaultWorld, reaper: SupervisedReaper) -> AsyncIterator[None]:
    """Let a session end while there is no room for its outcome."""
    async with _frozen_leak(world) as pid:
        with _no_room(reaper):
            failed = _next(reaper, events.AUDIT_FAILED)
            signal(pid, SIGCONT)
            await wait_until(failed, within=_SOON)
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


def _next(reaper: SupervisedReaper, name: str) -> Callable[[], bool]:
    """A condition that is true after one more such event."""
    known = len(reaper.log.named(name))
    return lambda: len(reaper.log.named(name)) > known


@asynccontextmanager
async def _frozen_leak(world: FaultWorld) -> AsyncIterator[int]:
    """Freeze the server process of a leak until a SIGTERM is pending there."""
    leaks = [each for each in world.clients.present if each.kind == "leaked" and not each.waiting]
    if not leaks:
        raise TimeoutError
    pid = max(leaks, key=lambda each: each.last.answered).pid
    signal(pid, SIGSTOP)
    try:
        await wait_until(lambda: _has_pending(pid, SIGTERM), within=_SOON)
        yield pid
    finally:
        signal(pid, SIGCONT)


def _has_pending(pid: int, number: int) -> bool:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            name, _, mask = line.partition(":")
            if name in {"SigPnd", "ShdPnd"} and int(mask, 16) & 1 << (number - 1):
                return True
    return False


def _signal_at_steps(number: Signals) -> Fault:
    """The leader gets a signal at a few steps of its cycle, one after the other."""

    @fault(f"{number.name} of the reaper", "reaper")
    async def at_steps(world: FaultWorld) -> AsyncIterator[None]:
        for step in world.dice.sample(tuple(Step), world.size.repeats):
            reaper, ends = world.leader, len(world.leader.ends)
            async with _halted(world, reaper, step) as reached:
                world.send(reaper, number, reached)
                if number is SIGKILL:
                    await wait_until(lambda: not reaper.running, within=_RESTARTED)  # noqa: B023
                # After SIGTERM it may have to finish something that the step withholds.
            await reaper.restarted(ends, within=_RESTARTED)
        yield

    return at_steps


@fault("SIGSTOP of the reaper", "reaper")
async def frozen(world: FaultWorld) -> AsyncIterator[None]:
    """The leader stands still at some steps, and continues as if nothing had happened."""
    for step in world.dice.sample(tuple(Step), world.size.repeats):
        reaper = world.leader
        try:
            async with _halted(world, reaper, step) as reached:
                world.send(reaper, SIGSTOP, reached)
            await world.hold(0.1, 3.0)
        finally:
            reaper.send(SIGCONT)
    yield


def _leader_lost(name: str, *others: str) -> Fault:
    """Several reapers work for one server, and each of the others has to take over once."""

    @fault(name, "reaper")
    async def leader_lost(world: FaultWorld) -> AsyncIterator[None]:
        try:
            for other in others:
                await world.join(other)
            await wait_until(lambda: any(each.leads for each in world.acting), within=LEASE + _RESTARTED)
            for _ in others:
                await _lose_leader(world)
            yield
        finally:
            await world.leave(*others)

    return leader_lost


async def _lose_leader(world: FaultWorld) -> None:
    leader = world.leader
    others = [each for each in world.acting if each is not leader]
    number = world.dice.choice((SIGKILL, SIGTERM, SIGSTOP))
    try:
        async with _halted(world, leader, world.dice.choice(tuple(Step))) as reached:
            world.send(leader, number, reached)
        # The next leader is one that stood by, or the lost one if it is back first.
        candidates = others if number is SIGSTOP else [leader, *others]
        await wait_until(lambda: any(each.leads for each in candidates), within=LEASE + _RESTARTED)
    finally:
        leader.send(SIGCONT)


FAULTS: Final[Sequence[Fault]] = (
    _signal_at_steps(SIGKILL),
    _signal_at_steps(SIGTERM),
    frozen,
    _leader_lost("two reapers, the leader lost", "second"),
    _leader_lost("three reapers, the leader lost twice", "second", "third"),
)
