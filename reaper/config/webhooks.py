"""Who is told what happened, and where."""

from dataclasses import dataclass, field
from enum import StrEnum

from reaper.policy.time import Span


class Occasion(StrEnum):
    """What is worth a message."""

    BRAKES = "brakes"
    BLINDNESS = "blindness"
    FAILURES = "failures"
    TERMINATIONS = "terminations"
    CHURN = "churn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that takes messages."""

    name: str
    url: str = field(repr=False)
    """Often a secret in itself: whoever knows it may write."""
    on: frozenset[Occasion]
    every: Span
    """What happens within this time goes into one message."""
