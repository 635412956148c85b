"""Records the history of a server: beside its cycles in `reaper run`, or alone in `reaper history`.

Beside cycles a snapshot is taken only in the rest between two of them, if there is time for it. If it cannot
be written, that is reported and the cycles go on.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final, Protocol

from reaper.config import Server
from reaper.history.write import HistoryFailed, HistoryOptions, HistoryWriter
from reaper.insight.recorded import CycleMark
from reaper.policy.plan import SkipReason
from reaper.policy.session import Session
from reaper.policy.time import SECOND, Duration, seconds
from reaper.postgres.connection import reconnecting
from reaper.postgres.errors import Refused, ServerError
from reaper.postgres.observer import Observer, ObservingFailed
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection, RunOptions, open_to_observe
from reaper.service.cycle import Cycle
from reaper.service.pause import Flag, pause, run_unless
from reaper.service.reporter import warn
from reaper.telemetry import events
from reaper.telemetry.log import Log

_MAX_MARKS: Final = 4_096
_MAX_WAITING: Final = 16
_FIRST_GUESS: Final = 0.05
_DECAY: Final = 0.8
_ROOM: Final = 4
"""A rest has room for a snapshot if it is this many times as long as the last snapshot took."""
_MAX_BACKOFF: Final = 300.0
_MAX_SNAPSHOT: Final = 5.0
_STATEMENTS: Final = 3
"""Statements of a snapshot, which share its time."""
_LIMITED: Final = {
    SkipReason.KEEP,
    SkipReason.MAX_SESSIONS,
    SkipReason.SAFETY_LIMIT,
    SkipReason.FIRST_SIGHTING,
    SkipReason.MAX_PER_CYCLE,
}


class HistoryReporter(Protocol):
    """Reports failures of the history."""

    def history_failed(self, why: str) -> None:
        """Report that a snapshot could not be taken or written."""

    def history_resumed(self) -> None:
        """Report that snapshots are written again."""


class HistoryRecorder:
    """Records the history of one server over a connection that belongs to its caller."""

    def __init__(self, options: HistoryOptions, server: str, reporter: HistoryReporter) -> None:
        self._writer = HistoryWriter(options, server)
        self._every = seconds(options.every)
        self._reporter = reporter
        self._due = 0.0
        self._took = _FIRST_GUESS
        self._marks: list[CycleMark] = []
        self._writing: asyncio.Task[None] | None = None
        self._waiting = 0
        self._failures = 0
        # Not the clock watch of the cycles: a jump that is noticed here would be news to no cycle.
        self._clock = ClockWatch()
        self._observer: tuple[OpenConnection, Observer] | None = None

    @property
    def due_in(self) -> float:
        """The seconds until the next snapshot is due."""
        return max(self._due - time.monotonic(), 0.0)

    def note_cycle(self, cycle: Cycle) -> None:
        """Note the moment of a cycle; record the sessions that it matched, if it terminated any of them."""
        snapshot = cycle.snapshot
        if self._marks and snapshot.at < self._marks[-1].at:
            self._marks.clear()  # the clock was set back: these marks are later than the next snapshot
        if len(self._marks) < _MAX_MARKS:
            self._marks.append(CycleMark(snapshot.at, snapshot.slots.used))
        if self._waiting < _MAX_WAITING and (candidates := _candidates(cycle)):
            self._write(partial(self._writer.write_partial, snapshot.at, candidates))

    async def record(self, at: OpenConnection, *, room: float) -> None:
        """Record a snapshot if one is due and there is room for it before the next cycle. Raises Lost."""
        if self.due_in or self._waiting >= _MAX_WAITING:
            return
        if room >= _ROOM * self._took:
            await self._record(at, within=min(room / 2, _MAX_SNAPSHOT))
        else:
            self._took *= _DECAY  # a server that was slow once may be quick again

    async def record_first(self, at: OpenConnection) -> None:
        """Record a snapshot before the first cycle, which terminates no session: the state before it."""
        await self._record(at, within=_MAX_SNAPSHOT)

    async def record_last(self, at: OpenConnection) -> None:
        """Record a last snapshot, because the marks of cycles are written with the snapshot after them."""
        if self._marks:
            with suppress(ServerError):
                await self._record(at, within=_MAX_SNAPSHOT)

    async def end(self) -> None:
        """Wait for what is being written, and close the file."""
        self._write(self._writer.close)
        while self._writing and not self._writing.done():
            await self._writing

    async def _record(self, at: OpenConnection, *, within: float) -> None:
        started = time.monotonic()
        self._due = started + self._every
        try:
            # A statement that takes longer is cancelled: a cycle must not wait for the history.
            self._clock.begin()
            async with at.connection.hurrying(within / _STATEMENTS):
                snapshot = await self._observer_of(at).observe(None)
        except ObservingFailed as failed:
            self._fail(str(failed))
            return
        self._clock.step(snapshot.at)
        self._took = time.monotonic() - started
        if self._clock.counted_from is not None:
            snapshot = snapshot.counted_from(self._clock.counted_from)
        marks, self._marks = [mark for mark in self._marks if mark.at <= snapshot.at], []
        if self._waiting < _MAX_WAITING:
            self._write(partial(self._writer.write, snapshot, marks))

    def _observer_of(self, at: OpenConnection) -> Observer:
        # An observer of its own: its cache holds all sessions, that of the cycles only a few.
        if self._observer is None or self._observer[0].connection is not at.connection:
            self._observer = at, Observer(at.connection, at.probe, server=at.observer.server)
        return self._observer[1]

    def _write(self, write: Callable[[], None]) -> None:
        # What waits for a slow disk is counted, because callers stop at a limit: it is held in memory.
        self._waiting += 1
        self._writing = asyncio.create_task(self._write_after(self._writing, write))

    async def _write_after(self, before: asyncio.Task[None] | None, write: Callable[[], None]) -> None:
        # In a thread, because packing takes milliseconds; in order, because each line builds on the last.
        if before:
            await before
        try:
            await asyncio.to_thread(write)
        except HistoryFailed as failed:
            self._fail(str(failed))
        else:
            if self._failures:
                self._failures = 0
                self._reporter.history_resumed()
        finally:
            self._waiting -= 1

    def _fail(self, why: str) -> None:
        self._failures += 1
        backoff = min(self._every * 2**self._failures, max(_MAX_BACKOFF, self._every))
        self._due = time.monotonic() + backoff
        self._reporter.history_failed(why)


def _candidates(cycle: Cycle) -> tuple[Session, ...]:
    """Return the sessions that were terminated and those beside them that only a limit skipped."""
    plan = cycle.plan
    candidates = (*plan.candidates, *plan.dry_run_candidates)
    if not candidates and not cycle.new_trips:
        return ()
    sessions = [each.session for each in candidates]
    sessions += [skip.session for skip in plan.matched_skips if skip.by in _LIMITED]
    return tuple({session.id: session for session in sessions}.values())


_LEASE_SNAPSHOTS: Final = 3
_MIN_LEASE: Final = Duration(60 * SECOND)


class HistoryLoop:
    """Connects to one server and records its history until it is stopped; runs no cycles."""

    def __init__(self, server: Server, options: HistoryOptions, *, log: Log, stop: Flag) -> None:
        self._server = server
        self._options = options
        self._log = log.bind(server=server.name)
        self._stop = stop
        self._recorder = HistoryRecorder(options, server.name, self)
        self._last_error: str | None = None

    async def run(self) -> None:
        """Connect, record, and connect again when the connection is lost."""
        try:
            await reconnecting(
                self._record,
                sleep=lambda delay: pause(delay, self._stop),
                report=self._report_unreachable,
                stopped=self._stop.is_set,
            )
        finally:
            await self._recorder.end()

    async def _record(self) -> None:
        lease = Duration(max(_LEASE_SNAPSHOTS * self._options.every, _MIN_LEASE))
        async with AsyncExitStack() as stack:
            connecting = open_to_observe(self._server, RunOptions(dry_run=True), lease=lease)
            at = await run_unless(self._stop, stack.enter_async_context(connecting))
            if at is None:
                return
            self._last_error = None
            warn(at, self._log)
            self._log.info(events.SERVER_CONNECTED, at=at.connection.where, postgres=at.probe.major)
            while not self._stop.is_set():
                await self._recorder.record(at, room=float("inf"))
                await pause(self._recorder.due_in, self._stop)

    def history_failed(self, why: str) -> None:
        """Report that a snapshot could not be taken or written."""
        self._log.error(events.HISTORY_FAILED, why=why)

    def history_resumed(self) -> None:
        """Report that snapshots are written again."""
        self._log.info(events.HISTORY_RESUMED)

    def _report_unreachable(self, error: BaseException | None, delay: float) -> None:
        event = events.SERVER_DENIED if isinstance(error, Refused) else events.SERVER_UNREACHABLE
        if str(error) != self._last_error:
            self._last_error = str(error)
            self._log.error(event, why=str(error), retry=f"in {delay:.1f}s")
