"""What advice is made of: a finding, the numbers behind it, and what would cure it."""

from dataclasses import dataclass
from enum import StrEnum


class Urgency(StrEnum):
    """How soon somebody should do something."""

    NOW = "now"
    """Clients are refused, or about to be, or wait for a lock that nobody will give back."""
    SOON = "soon"
    """It gets worse by itself."""
    WORTH = "worth"
    """Nothing breaks; it would be better otherwise."""

    @property
    def acts(self) -> bool:
        """Whether it needs somebody to act."""
        return self is not Urgency.WORTH


class Sure(StrEnum):
    """How sure the numbers make us."""

    COUNTED = "counted"
    """It is what the server says."""
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """One way to mend it, and what that costs or could break."""

    does: str
    sql: str = ""
    """Statements to copy as they stand, each on a line of its own; every name in them is quoted."""
    setting: str = ""
    """A line for the configuration of something that is not the server."""
    costs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that could be better, as far as the numbers go."""

    topic: str
    urgency: Urgency
    says: str
    sure: Sure
    evidence: tuple[str, ...]
    """The numbers, each in a sentence."""
    cures: tuple[Cure, ...] = ()
    role: str | None = None
    application: str | None = None
    weight: float = 0.0
    """Among findings of one urgency the heavier is told first: sessions, mostly."""
