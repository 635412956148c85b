"""The history of a server beside its cycles: it comes after whatever is due, and stops nothing.

A reading is taken in the rest between two cycles, when there is room for it; packing and writing are done by
a thread. What cannot be written is told and left out.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from reaper import __version__
from reaper.config import Server
from reaper.history.aliases import Aliases
from reaper.history.folder import Bounds, HistoryFolder
from reaper.history.write import HistoryFailed, HistoryWriter
from reaper.policy.plan import Spared
from reaper.policy.seen import Mark
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import SECOND, Span, seconds
from reaper.postgres.errors import Refused, ServerError
from reaper.postgres.observer import Observer, ObservingFailed
from reaper.postgres.preflight import refuse
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection, RunOptions, opened
from reaper.service.cycle import Cycle
from reaper.service.pause import Flag, pause, run_unless
from reaper.service.reporter import warn
from reaper.telemetry import events
from reaper.telemetry.log import Log

_MOST_MARKS: Final = 4_096
_MOST_WAITING: Final = 16
_FIRST_GUESS: Final = 0.05
_FORGETS: Final = 0.8
_ROOM: Final = 4
"""A reading may take so many times as long as the last one without being in a cycle's way."""
_ANNALS_LONGEST_BACKOFF: Final = 300.0
_LONGEST_LOOK: Final = 5.0
_STATEMENTS: Final = 3
"""They share the time of a reading."""

_RESTRAINED: Final = {Spared.KEEP, Spared.CAP, Spared.BRAKE, Spared.FIRST_SIGHTING, Spared.PACE}


class Herald(Protocol):
    """Tells how the history goes."""

    def history_failed(self, why: str) -> None:
        """A look could not be taken or written."""

    def history_resumed(self) -> None:
        """It goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What is to be kept, and where."""

    folder: HistoryFolder
    every: Span
    aliases: Aliases | None = None
    pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "history"))

    @classmethod
    def at(cls, path: Path, *, bounds: Bounds, every: Span, aliases: Aliases | None = None) -> "Keeping":
        """In this folder."""
        return cls(folder=HistoryFolder(path, bounds), every=every, aliases=aliases)

    def of(self, server: str, herald: Herald) -> "Annals":
        """The history of one server."""
        writer = HistoryWriter(
            self.folder, server=server, every=self.every, version=__version__, aliases=self.aliases
        )
        return Annals(writer, self.pool, every=seconds(self.every), herald=herald)


class Annals:
    """Keeps the history of one server."""

    def __init__(
        self, writer: HistoryWriter, pool: ThreadPoolExecutor, *, every: float, herald: Herald
    ) -> None:
        self._writer = writer
        self._pool = pool
        self._every = every
        self._herald = herald
        self._due = 0.0
        self._took = _FIRST_GUESS
        self._marks: list[Mark] = []
        self._waiting = 0
        self._failures = 0
        self._clock = ClockWatch()  # not the cycles' own: a jump that it noticed would be news to no cycle
        self._observer: tuple[OpenConnection, Observer] | None = None

    @property
    def due_in(self) -> float:
        """How long until the next reading is due, in seconds."""
        return max(self._due - time.monotonic(), 0.0)

    def cycled(self, cycle: Cycle) -> None:
        """Note when a cycle looked, and where it condemned anybody, who was a candidate and how they were."""
        snapshot = cycle.snapshot
        if self._marks and snapshot.at < self._marks[-1].at:
            self._marks.clear()  # the server's clock was set back: they are of another time
        if len(self._marks) < _MOST_MARKS:
            self._marks.append(Mark(snapshot.at, snapshot.slots.used))
        if candidates := _candidates(cycle):
            self._submit(partial(self._sighting, snapshot, candidates))

    async def look(self, at: OpenConnection, *, room: float) -> None:
        """Take a reading if it is time, and if there is room for it before the next cycle; raises Lost."""
        if self.due_in or self._waiting >= _MOST_WAITING:
            return
        if room >= _ROOM * self._took:
            await self._read(at, within=min(room / 2, _LONGEST_LOOK))
        else:
            self._took *= _FORGETS  # what was slow once may be quick again

    async def look_first(self, at: OpenConnection) -> None:
        """Take a reading before the first cycle, which takes nobody: what it is to be compared with."""
        await self._read(at, within=_LONGEST_LOOK)

    async def look_last(self, at: OpenConnection) -> None:
        """Take a last reading, so that what cycles have noted since the one before is not left behind."""
        if self._marks:
            with suppress(ServerError):
                await self._read(at, within=_LONGEST_LOOK)

    async def _read(self, at: OpenConnection, *, within: float) -> None:
        started = time.monotonic()
        self._due = started + self._every
        try:
            self._clock.begin()
            async with at.link.hurrying(within / _STATEMENTS):
                snapshot = await self._observer_of(at).observe(None)
        except ObservingFailed as failed:
            self._failed(str(failed))
            return
        self._clock.step(snapshot.at)
        self._took = time.monotonic() - started
        if self._clock.counted_from is not None:
            snapshot = snapshot.counted_from(self._clock.counted_from)
        marks, self._marks = [mark for mark in self._marks if mark.at <= snapshot.at], []
        self._submit(partial(self._writer.reading, snapshot, marks))

    async def end(self) -> None:
        """Write what is at hand, and close the file."""
        await asyncio.wrap_future(self._pool.submit(self._quietly, self._writer.close))

    def _observer_of(self, at: OpenConnection) -> Observer:
        """Its own: what it knows of everybody is not forgotten when a cycle looks at a few."""
        if self._observer is None or self._observer[0].link is not at.link:
            self._observer = at, Observer(at.link, at.probe, server=at.observer.server)
        return self._observer[1]

    def _sighting(self, snapshot: Snapshot, sessions: tuple[Session, ...]) -> None:
        self._writer.sighting(snapshot.at, sessions, snapshot.facts)

    def _submit(self, write: Callable[[], None]) -> None:
        if self._waiting >= _MOST_WAITING:
            return
        self._waiting += 1
        loop = asyncio.get_running_loop()
        done = self._pool.submit(self._quietly, write)
        done.add_done_callback(lambda future: loop.call_soon_threadsafe(self._written, future))

    def _quietly(self, write: Callable[[], None]) -> str | None:
        try:
            write()
        except HistoryFailed as failed:
            return str(failed)
        return None

    def _written(self, done: "Future[str | None]") -> None:
        self._waiting -= 1
        why = done.result()
        if why is not None:
            self._failed(why)
        elif self._failures:
            self._failures = 0
            self._herald.history_resumed()

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._due = time.monotonic() + min(
            self._every * 2**self._failures, max(_ANNALS_LONGEST_BACKOFF, self._every)
        )
        self._herald.history_failed(why)


def _candidates(cycle: Cycle) -> tuple[Session, ...]:
    """Those whom a policy condemned, and those whom only a restraint spared beside them; mostly nobody."""
    plan = cycle.plan
    condemned = {reap.session.id: reap.session for reap in (*plan.reaps, *plan.rehearsals)}
    if not condemned and not cycle.new_brakes:
        return ()
    spared = {spare.session.id: spare.session for spare in plan.matched_spares if spare.by in _RESTRAINED}
    return tuple({**condemned, **spared}.values())


_LONGEST_BACKOFF: Final = 60.0
_LEASE_READINGS: Final = 3
_SHORTEST_LEASE: Final = Span(60 * SECOND)
_MISLEADING: Final = {"pooler", "visibility", "version"}
"""Through a pooler or half blind, what is kept would look true and be wrong."""
_ALL_THE_TIME: Final = float("inf")


class Recorder:
    """Keeps the history of one server until it is asked to stop."""

    def __init__(self, server: Server, keeping: Keeping, *, log: Log, stop: Flag) -> None:
        self._server = server
        self._log = log.bind(server=server.name)
        self._stop = stop
        self._keeping = keeping
        self._annals: Annals = keeping.of(server.name, self)
        self._trouble: str | None = None

    async def run(self) -> None:
        """Connect, look, and connect again when the server was lost."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ServerError),
            wait=wait_exponential_jitter(initial=1, max=_LONGEST_BACKOFF, jitter=1),
            sleep=lambda delay: pause(delay, self._stop),
            before_sleep=self._say_away,
            stop=lambda _: self._stop.is_set(),
            retry_error_callback=lambda _: None,
        )
        try:
            while not self._stop.is_set():
                await attempts(self._record)
        finally:
            await self._annals.end()

    async def _record(self) -> None:
        lease = Span(max(_LEASE_READINGS * self._keeping.every, _SHORTEST_LEASE))
        async with AsyncExitStack() as stack:
            connecting = opened(self._server, None, RunOptions(dry_run=True), lease=lease)
            at = await run_unless(self._stop, stack.enter_async_context(connecting))
            if at is None:
                return
            refuse(tuple(found for found in at.findings if found.check in _MISLEADING))
            self._say_connected(at)
            while not self._stop.is_set():
                await self._annals.look(at, room=_ALL_THE_TIME)
                await pause(self._annals.due_in, self._stop)

    def history_failed(self, why: str) -> None:
        """A look could not be taken or written."""
        self._log.error(events.HISTORY_FAILED, why=why)

    def history_resumed(self) -> None:
        """It goes on."""
        self._log.info(events.HISTORY_RESUMED)

    def _say_connected(self, at: OpenConnection) -> None:
        self._trouble = None
        warn(at, self._log)
        self._log.info(events.SERVER_CONNECTED, at=at.link.where, postgres=at.probe.major)

    def _say_away(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        event = events.SERVER_DENIED if isinstance(error, Refused) else events.SERVER_UNREACHABLE
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._log.error(event, why=str(error), retry=f"in {attempt.upcoming_sleep:.1f}s")
