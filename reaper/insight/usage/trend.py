"""The sessions that hold the slots of one server now, and the slots in use over the last minutes."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reaper.insight.usage.census import Census, Ranking

BEAT_SECONDS: Final = 10.0
BEATS: Final = 60
_HOLDS: Final = 6
"""Beats for which a count holds without a later one; after that the value is unknown."""
_NOTHING: Final = -1
_MOST: Final = 2**31 - 1

Values = tuple[int | None, ...]
"""The highest count of each beat, the latest last; None without a snapshot."""


class Trend:
    """Remembers the highest count of each beat."""

    __slots__ = ("_last", "_values")

    def __init__(self) -> None:
        self._values = array("i", [_NOTHING] * BEATS)
        self._last: int | None = None

    def note(self, now: float, count: int) -> None:
        """Add the number of slots in use now, by a monotonic clock."""
        beat = int(now // BEAT_SECONDS)
        if self._last is not None and beat <= self._last - BEATS:
            return
        for passed in self._passed(beat):
            self._values[passed % BEATS] = _NOTHING
        self._last = max(beat, self._last or beat)
        self._values[beat % BEATS] = max(self._values[beat % BEATS], min(count, _MOST))

    def values(self, now: float) -> Values:
        """The counts until now; each holds until the next snapshot, for a minute at most."""
        current = int(now // BEAT_SECONDS)
        found: list[int | None] = []
        held, since = _NOTHING, 0
        for beat in range(current - BEATS + 1, current + 1):
            seen = self._seen(beat)
            held, since = (seen, beat) if seen != _NOTHING else (held, since)
            found.append(held if held != _NOTHING and beat - since <= _HOLDS else None)
        return tuple(found)

    def _seen(self, beat: int) -> int:
        known = self._last is not None and self._last - BEATS < beat <= self._last
        return self._values[beat % BEATS] if known else _NOTHING

    def _passed(self, beat: int) -> range:
        """The beats that have begun since the last note and are still empty."""
        if self._last is None:
            return range(0)
        return range(max(self._last + 1, beat - BEATS + 1), beat + 1)


RANKINGS: Final = ("applications", "roles", "databases", "clients")
_MOST_GROUPS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """A census, and the counts of the last minutes."""

    census: Census
    beat_s: float
    used: Values
    """Slots in use, over the last minutes."""
    trends: Mapping[str, tuple[Values, ...]]
    """For each ranking, the sessions of its groups over the last minutes, in the same order."""


class Trends:
    """The counts of one server over the last minutes; groups without sessions are forgotten."""

    def __init__(self) -> None:
        self.used = Trend()
        self._groups: dict[tuple[str, str | None], Trend] = {}

    def note(self, counted: Census, now: float) -> None:
        """Add a census."""
        self.used.note(now, counted.openings.used)
        shown = {
            (ranking, group.name): group.count
            for ranking in RANKINGS
            for group in ranking_of(counted, ranking).groups
        }
        if len(self._groups) + len(shown) > _MOST_GROUPS:
            self._groups = {key: trend for key, trend in self._groups.items() if key in shown}
        for key, count in shown.items():
            self._groups.setdefault(key, Trend()).note(now, count)

    def forget_groups(self) -> None:
        """Forget all groups, and keep the slots."""
        self._groups.clear()

    def usage(self, counted: Census, now: float) -> Usage:
        """Return this census with the counts of the last minutes."""
        unseen = Trend()
        return Usage(
            census=counted,
            beat_s=BEAT_SECONDS,
            used=self.used.values(now),
            trends={
                ranking: tuple(
                    self._groups.get((ranking, group.name), unseen).values(now)
                    for group in ranking_of(counted, ranking).groups
                )
                for ranking in RANKINGS
            },
        )


def ranking_of(counted: Census, name: str) -> Ranking:
    """One of the rankings, by its name."""
    found: Ranking = getattr(counted, name)
    return found
