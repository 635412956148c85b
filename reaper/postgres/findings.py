"""What a look at a server, or at a policy file, has found; every finding carries its cure."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    FINE = "fine"
    NOTE = "note"
    WARNING = "warning"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer of the preflight."""

    check: str
    level: Level
    finding: str
    mend: str = ""
    """SQL or a setting that cures it."""
