"""Who holds the connections of one server now, and how that came about over the last minutes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reaper.policy.census import Census, Ranking
from reaper.policy.trend import BEAT_SECONDS, Trend, Values

RANKINGS: Final = ("applications", "roles", "databases", "clients")
_MOST_GROUPS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """A census, and what went before."""

    census: Census
    beat_s: float
    used: Values
    """Slots in use, over the last minutes."""
    trends: Mapping[str, tuple[Values, ...]]
    """For each ranking, the sessions of its groups over the last minutes, in the same order."""


class Trends:
    """What was seen of one server over the last minutes; it forgets groups that have left."""

    def __init__(self) -> None:
        self.used = Trend()
        self._groups: dict[tuple[str, str | None], Trend] = {}

    def note(self, counted: Census, now: float) -> None:
        """This was seen now."""
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
        """Follow the slots alone."""
        self._groups.clear()

    def usage(self, counted: Census, now: float) -> Usage:
        """This census, with what went before."""
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
