"""What a replay tells from one reading to the next: who would have been taken, and what came of the slots."""

from dataclasses import dataclass, field
from typing import NamedTuple

from reaper.policy.session import SessionId
from reaper.policy.spans import Instant, Span
from reaper.policy.verdict import BrakeTrip, Reap


class Rhythm(NamedTuple):
    """How often the service looks."""

    interval: Span
    precision: Span


class Taken(NamedTuple):
    """A session that would have been taken, and when."""

    at: Instant
    reap: Reap
    again: bool = False
    """The same act once more: since it was taken the session has stayed as it was, and nobody had looked."""


class Level(NamedTuple):
    """How many slots were used, and how many would have been."""

    at: Instant
    used: int
    would: int


@dataclass(slots=True, kw_only=True)
class Stretch:
    """What would have happened from one reading to the next."""

    at: Instant
    gap: Span | None = None
    """Nothing is known of so long a time before it; everybody is seen for the first time again."""
    taken: list[Taken] = field(default_factory=list)
    trips: list[tuple[Instant, BrakeTrip]] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    back: list[SessionId] = field(default_factory=list)
    """Who counted as gone and does so no longer: it was used again, or has left by itself."""
    uncertain: int = 0
    """Who changed or left between two readings when it could have been taken there."""
    looks: int = 0
