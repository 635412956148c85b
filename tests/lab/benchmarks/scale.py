"""How large a benchmark is run."""

from enum import StrEnum


class Scale(StrEnum):
    """The figures that count, a first impression, or whether it runs at all."""

    FULL = "full"
    QUICK = "quick"
    SMOKE = "smoke"
