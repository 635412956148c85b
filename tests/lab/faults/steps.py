"""Bringing a reaper to a step of its cycle, and keeping it there for a moment.

Nothing in the reaper helps: what it waits for at that step is withheld from outside. A lock on a catalog
stops its look, a lock on its record stops its pen, a frozen server process of its own stops its act, and a
frozen session of somebody else's stops the confirmation.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Final

import psycopg

from reaper.audit.events import INTENT
from reaper.telemetry import events

from .patience import until
from .replica import Replica
from .world import World, signal

_SOON: Final = 8.0
_LOOKS: Final = 1_000
_WAITS: Final = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"
_LONGEST_REST: Final = 1.2


class Step(StrEnum):
    """Where a reaper can be in its cycle."""

    CONNECT = "connecting"
    OBSERVE = "observing"
    INTEND = "intending: nothing durable yet"
    ACT = "acting: intents durable, the signal on its way"
    CONFIRM = "confirming: signalled, not gone"
    SETTLE = "settling: gone, the outcome not written"
    REST = "resting"
    ANYWHERE = "anywhere"


Halting = Callable[[World, Replica], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def halted(world: World, replica: Replica, step: Step) -> AsyncIterator[Step]:
    """The reaper at this step, for about a second; wherever it is when it cannot be brought there."""
    halting = _HALTS[step](world, replica)
    try:
        await halting.__aenter__()
    except (TimeoutError, psycopg.Error, OSError):
        # Another fault is in the way: no cycle gets that far now.
        yield Step.ANYWHERE
        return
    try:
        yield step
    finally:
        with suppress(psycopg.Error):
            await halting.__aexit__(None, None, None)


@asynccontextmanager
async def _anywhere(world: World, _: Replica) -> AsyncIterator[None]:
    await asyncio.sleep(world.dice.uniform(0, _LONGEST_REST))
    yield


@asynccontextmanager
async def _connecting(world: World, replica: Replica) -> AsyncIterator[None]:
    """Reset its connection, and let nobody answer the next one."""
    said = len(replica.daemon.journal.named(events.SERVER_UNREACHABLE))
    world.line.reset()
    await until(lambda: len(replica.daemon.journal.named(events.SERVER_UNREACHABLE)) > said, within=_SOON)
    world.line.go_deaf()
    try:
        await asyncio.sleep(world.dice.uniform(0, 2 * _LONGEST_REST))
        yield
    finally:
        world.line.restore()


@asynccontextmanager
async def _observing(world: World, __: Replica) -> AsyncIterator[None]:
    """Its look at the roles waits for a lock."""
    backends = await world.backends()
    async with world.admin(within=0) as admin, admin.transaction():
        await admin.execute("LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        for _ in range(_LOOKS):
            cursor = await admin.execute(_WAITS, (backends[0].pid if backends else 0,))
            if await cursor.fetchone():
                break
            await asyncio.sleep(_SOON / _LOOKS)
        else:
            raise TimeoutError
        yield


@asynccontextmanager
async def _intending(_: World, replica: Replica) -> AsyncIterator[None]:
    """Its pen waits for the record before the first intent."""
    with _pen_stopped(replica):
        await until(lambda: _waits_for_its_record(replica), within=_SOON)
        yield


@asynccontextmanager
async def _acting(world: World, replica: Replica) -> AsyncIterator[None]:
    """Its intents are durable, and its server process does not run what it was sent."""
    backends = await world.backends()
    if not backends:
        raise TimeoutError
    try:
        with _pen_stopped(replica):
            await until(lambda: _waits_for_its_record(replica), within=_SOON)
            signal(backends[0].pid, SIGSTOP)
        written = _intents(replica)
        await until(lambda: _intents(replica) > written and not _sleeps(replica.pid), within=_SOON)
        yield
    finally:
        signal(backends[0].pid, SIGCONT)


@asynccontextmanager
async def _confirming(world: World, _: Replica) -> AsyncIterator[None]:
    """A session has been signalled, and does not go."""
    with _frozen_leak(world) as pid:
        await until(lambda: _has_pending(pid, SIGTERM), within=_SOON)
        yield


@asynccontextmanager
async def _settling(world: World, replica: Replica) -> AsyncIterator[None]:
    """The session is gone, and its outcome waits for the record."""
    with _frozen_leak(world) as pid:
        await until(lambda: _has_pending(pid, SIGTERM), within=_SOON)
        with _pen_stopped(replica):
            signal(pid, SIGCONT)
            await until(lambda: _waits_for_its_record(replica), within=_SOON)
            yield


@asynccontextmanager
async def _resting(_: World, replica: Replica) -> AsyncIterator[None]:
    known = replica.cycles()
    await until(lambda: replica.cycles() > known, within=_SOON)
    yield


_HALTS: Final[Mapping[Step, Halting]] = {
    Step.CONNECT: _connecting,
    Step.OBSERVE: _observing,
    Step.INTEND: _intending,
    Step.ACT: _acting,
    Step.CONFIRM: _confirming,
    Step.SETTLE: _settling,
    Step.REST: _resting,
    Step.ANYWHERE: _anywhere,
}


@contextmanager
def _pen_stopped(replica: Replica) -> Iterator[None]:
    fd = os.open(replica.record, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _waits_for_its_record(replica: Replica) -> bool:
    # It asks for the lock again and again, a millisecond apart; at all other times it waits for events.
    return _sleeps(replica.pid) and _holds_open(replica.pid, replica.record)


def _sleeps(pid: int) -> bool:
    with suppress(OSError):
        return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")
    return False


def _holds_open(pid: int, path: Path) -> bool:
    with suppress(OSError):
        return any(fd.readlink() == path for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _intents(replica: Replica) -> int:
    lines = replica.record.read_text(encoding="ascii", errors="replace").splitlines()
    return sum(INTENT in line for line in lines)


@contextmanager
def _frozen_leak(world: World) -> Iterator[int]:
    """The server process of a session that is about to be terminated, frozen."""
    leaks = [each for each in world.load.present if each.kind == "leaked" and not each.at_work]
    if not leaks:
        raise TimeoutError
    newest = max(leaks, key=lambda each: each.told_at)
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
