"""What a campaign begins with, and what is noted while it lasts."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much goes on in a campaign."""

    clients: Mapping[str, int]
    """Of each kind."""
    blows: int
    """At so many steps of its cycle a reaper is struck in one round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The moment at which a leader was lost, and what happened to it."""

    at: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Truce:
    """A time, by this host's clock, in which no reaper may terminate anybody."""

    why: str
    since: float
    until: float
