"""What is counted of one crowd while it is looked at."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from reaper.policy.advice.ages import Ages
from reaper.policy.spans import Instant, Span

_BUCKETS: Final = 12


class Lately:
    """Counts what happens within a stretch of time that moves on; in little memory, so a little roughly."""

    def __init__(self, stretch: Span) -> None:
        self._width = max(stretch // _BUCKETS, 1)
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS + 1)

    def add(self, at: Instant) -> None:
        """It has happened once more."""
        bucket, count = at // self._width, 1
        if self._buckets and self._buckets[-1][0] == bucket:
            count += self._buckets.pop()[1]
        self._buckets.append((bucket, count))

    def count(self, now: Instant) -> int:
        """How often it has happened in the stretch before this moment."""
        return sum(count for bucket, count in self._buckets if bucket >= now // self._width - _BUCKETS)


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of one crowd."""

    opened: Lately
    closed: Lately
    count: int = 0
    """Sessions that are there."""
    working: int = 0
    """Of these, how many are at work or in a transaction."""
    most: int = 0
    most_working: int = 0
    revived: Ages = field(default_factory=Ages)
    pauses: Ages = field(default_factory=Ages)
    transactions: Ages = field(default_factory=Ages)

    @classmethod
    def over(cls, stretch: Span) -> "Tally":
        """One that remembers comings and goings for so long."""
        return cls(opened=Lately(stretch), closed=Lately(stretch))
