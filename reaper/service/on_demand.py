"""What one server shows to those who ask: looked up for them, between cycles, and never in a cycle's way.

Whoever asks sets a flag. The loop, which rests until its next cycle is due, sees it and looks once at
everybody over the connection that it holds anyway, in the time that is left. When nobody asks nothing is
looked up.
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
from reaper.policy.time import Instant
from reaper.postgres.observer import Observer, ObservingFailed
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection
from reaper.service.pause import Flag, pause

TOP: Final = 12
_MOST_DUE: Final = 6
_FRESH_SECONDS: Final = 2.0
"""However many ask, the server is asked once in so long."""
_LONGEST_LOOK: Final = 1.0
_SHORTEST_LOOK: Final = 0.05
"""With less time until the next cycle nobody is looked up before it."""
_MARGIN: Final = 0.02
"""Between the end of a look and the next cycle."""
_STATEMENTS: Final = 2
"""They share the time of a look."""
_PATIENCE: Final = 2.0
"""So long who asks is kept waiting for a new look before they get the last one."""
_FOLLOWED_SECONDS: Final = 900.0
"""After so long without a question the groups are followed no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at everybody, worked out for people."""

    usage: Usage
    soonest: tuple[Due, ...]
    at: Instant
    taken: float
    """The same moment by the host's monotonic clock."""


@dataclass(frozen=True, slots=True)
class _Look:
    snapshot: Snapshot
    rules: Rules
    taken: float


class Lookout:
    """Looks at one server for whoever asks."""

    def __init__(
        self, server: str, clocks: ClockWatch, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.asked = Flag()
        self._server = server
        self._clocks = clocks
        self._clock = clock
        self._attended = False
        self._news = asyncio.Event()
        self._trends = Trends()
        self._last: Reading | None = None
        self._whole: _Look | None = None
        """The last look at everybody, a cycle's or a visitor's."""
        self._tried = self._asked_last = -_FOLLOWED_SECONDS

    def attend(self, *, attended: bool) -> None:
        """From now on there is a loop that looks, or none."""
        self._attended = attended
        self.asked.clear()
        self._answer()  # nobody will look for those who wait now: they get the last look at once

    def cycled(self, snapshot: Snapshot, rules: Rules) -> None:
        """A cycle has looked: at everybody, or at enough for a count."""
        now = self._clock()
        self._trends.used.note(now, snapshot.slots.used)
        if snapshot.young is None:
            self._whole = _Look(snapshot, rules, now)
        if self._last and now - self._asked_last > _FOLLOWED_SECONDS:
            self._last = None
            self._trends.forget_groups()

    @property
    def used(self) -> Values:
        """The slots in use over the last minutes."""
        return self._trends.used.values(self._clock())

    async def reading(self) -> Reading | None:
        """A look of now, or the last one there was; nothing when there was none."""
        self._asked_last = self._clock()
        if self._attended and not self._just_tried:
            news = self._news
            self.asked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await news.wait()
        last, whole = self._last, self._whole
        # A cycle's look knows nobody who waits: it takes the place of a much older one only.
        if whole and (last is None or whole.taken > last.taken + _FRESH_SECONDS):
            last = self._last = self._read(whole)
        return last

    async def snapshot(self) -> Snapshot | None:
        """The same look, session by session, and never a query; nothing when there was none."""
        await self.reading()
        if self._whole is None:
            return None
        seen = self._whole.snapshot
        return replace(seen, sessions=tuple(replace(each, query=None) for each in seen.sessions))

    async def rest(self, at: OpenConnection, rules: Rules, delay: float, *wakers: Flag) -> None:
        """Rest for so long or until woken, and look meanwhile for whoever asks."""
        end = self._clock() + delay
        while True:
            left = end - self._clock()
            in_time = left - _MARGIN >= _SHORTEST_LOOK
            await pause(left, *wakers, *((self.asked,) if in_time else ()))
            if not in_time or not self.asked.is_set() or any(waker.is_set() for waker in wakers):
                return
            within = min(end - self._clock() - _MARGIN, _LONGEST_LOOK)
            if within >= _SHORTEST_LOOK:
                await self._look(at, rules, within)

    @property
    def _just_tried(self) -> bool:
        return self._clock() - self._tried < _FRESH_SECONDS

    async def _look(self, at: OpenConnection, rules: Rules, within: float) -> None:
        # An observer of its own: what the cycles' remembers of their last look stays as it is.
        observer = Observer(at.link, at.probe, server=self._server)
        try:
            async with at.link.hurrying(within / _STATEMENTS):
                snapshot = await observer.everybody()
            if self._clocks.counted_from is not None:
                snapshot = snapshot.counted_from(self._clocks.counted_from)
            self._whole = _Look(snapshot, rules, self._clock())
            self._last = self._read(self._whole)
        except ObservingFailed:
            pass  # there is the last one, with its age
        finally:
            self._tried = self._clock()
            self.asked.clear()
            self._answer()

    def _answer(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _read(self, look: _Look) -> Reading:
        counted = census(look.snapshot, top=TOP)
        self._trends.note(counted, look.taken)
        return Reading(
            usage=self._trends.usage(counted, self._clock()),
            soonest=soonest(look.snapshot, look.rules, most=_MOST_DUE),
            at=look.snapshot.at,
            taken=look.taken,
        )
