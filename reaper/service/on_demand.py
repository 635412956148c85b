"""The on-demand snapshot of one server, taken for the pages between two cycles.

A page request sets a flag. The server loop, which rests until its next cycle is due, takes one snapshot over
the connection that it holds anyway, in the time that is left. Without requests nothing is read.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from reaper.insight.usage.census import census
from reaper.insight.usage.trend import Trends, Usage, Values
from reaper.policy.deadline import Due, soonest
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.policy.time import Timestamp
from reaper.postgres.observer import Observer, ObservingFailed
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection
from reaper.service.pause import Flag, pause

_MAX_GROUPS: Final = 12
_MAX_DUE: Final = 6
_FRESH_SECONDS: Final = 2.0
"""Within this time all requests get the same snapshot."""
_MIN_SECONDS: Final = 0.05
_MAX_SECONDS: Final = 1.0
_MARGIN: Final = 0.02
"""Between the end of a snapshot and the next cycle."""
_STATEMENTS: Final = 3
"""They share the time of a snapshot."""
_WAIT_SECONDS: Final = 2.0
"""A request waits this long for a new snapshot before it gets the last one."""
_TREND_SECONDS: Final = 900.0
"""After this time without a request, the trends of the groups are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentUsage:
    """One snapshot of all sessions, prepared for a page."""

    usage: Usage
    soonest: tuple[Due, ...]
    at: Timestamp
    taken: float
    """The same moment by the host's monotonic clock."""


class OnDemandSnapshot:
    """Takes snapshots of one server for page requests."""

    def __init__(
        self, server: str, watch: ClockWatch, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requested = Flag()
        self._server = server
        self._watch = watch
        self._clock = clock
        self._available = False
        self._renewed = asyncio.Event()
        self._trends = Trends()
        self._usage: CurrentUsage | None = None
        self._last: tuple[Snapshot, Rules, float] | None = None
        """The last snapshot of all sessions, of a cycle or on demand, and when it was taken."""
        self._tried = self._last_request = -_TREND_SECONDS

    def set_available(self, *, available: bool) -> None:
        """Note whether a server loop holds a connection now."""
        self._available = available
        self.requested.clear()
        self._release()  # no loop will serve the requests that wait: they get the last snapshot at once

    def cycled(self, snapshot: Snapshot, rules: Rules) -> None:
        """Note the snapshot of a cycle; if the prefilter left sessions out, only its count is used."""
        now = self._clock()
        self._trends.used.note(now, snapshot.slots.used)
        if snapshot.left_out is None:
            self._last = snapshot, rules, now
        if self._usage and now - self._last_request > _TREND_SECONDS:
            self._usage = None
            self._trends.forget_groups()

    @property
    def used(self) -> Values:
        """The slots in use over the last minutes."""
        return self._trends.used.values(self._clock())

    async def usage(self) -> CurrentUsage | None:
        """Return the usage now, or the last one known; None before the first snapshot."""
        self._last_request = self._clock()
        if self._available and self._clock() - self._tried >= _FRESH_SECONDS:
            renewed = self._renewed
            self.requested.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_SECONDS):
                    await renewed.wait()
        # A cycle's snapshot does not know blocked sessions: it replaces only one that is much older.
        if self._last and (self._usage is None or self._last[2] > self._usage.taken + _FRESH_SECONDS):
            self._usage = self._current(*self._last)
        return self._usage

    async def snapshot(self) -> Snapshot | None:
        """Return the same snapshot session by session, without queries; None before the first one."""
        await self.usage()
        if self._last is None:
            return None
        snapshot = self._last[0]
        return replace(snapshot, sessions=tuple(replace(each, query=None) for each in snapshot.sessions))

    async def rest(self, at: OpenConnection, rules: Rules, delay: float, *wakers: Flag) -> None:
        """Rest for `delay` or until a waker is set, and take the snapshots that are requested meanwhile."""
        end = self._clock() + delay
        while True:
            left = end - self._clock()
            in_time = left - _MARGIN >= _MIN_SECONDS
            await pause(left, *wakers, *((self.requested,) if in_time else ()))
            if not in_time or not self.requested.is_set() or any(waker.is_set() for waker in wakers):
                return
            within = min(end - self._clock() - _MARGIN, _MAX_SECONDS)
            if within >= _MIN_SECONDS:
                await self._take(at, rules, within)

    async def _take(self, at: OpenConnection, rules: Rules, within: float) -> None:
        # An observer of its own: the observer of the cycles compares with its own last snapshot.
        observer = Observer(at.connection, at.probe, server=self._server)
        try:
            async with at.connection.hurrying(within / _STATEMENTS):
                snapshot = await observer.observe(None)
            if self._watch.counted_from is not None:
                snapshot = snapshot.counted_from(self._watch.counted_from)
            self._last = snapshot, rules, self._clock()
            self._usage = self._current(*self._last)
        except ObservingFailed:
            pass  # the requests get the last snapshot, with its age
        finally:
            self._tried = self._clock()
            self.requested.clear()
            self._release()

    def _release(self) -> None:
        self._renewed.set()
        self._renewed = asyncio.Event()

    def _current(self, snapshot: Snapshot, rules: Rules, taken: float) -> CurrentUsage:
        counts = census(snapshot, top=_MAX_GROUPS)
        self._trends.note(counts, taken)
        return CurrentUsage(
            usage=self._trends.usage(counts, self._clock()),
            soonest=soonest(snapshot, rules, most=_MAX_DUE),
            at=snapshot.at,
            taken=taken,
        )
