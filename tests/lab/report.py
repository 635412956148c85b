"""What an experiment prints: tables, broken promises, and the machine that it ran on."""

import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

NOTHING: Final = "-"
_ONE_SIDED_95: Final = 1.645
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a campaign."""

    tables: Sequence[str]
    counted: Mapping[str, int]
    """The figures that tests check."""
    broken: Sequence[str]
    """Every promise that was broken, in a sentence each."""

    @property
    def text(self) -> str:
        conclusion = [f"BROKEN: {what}" for what in self.broken] or ["No promise was broken."]
        return "\n\n".join([*self.tables, "\n".join(conclusion)])


class Machine:
    """This machine, and its load from now on."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._began = time.monotonic()

    def described(self, major: int) -> str:
        """One line that names no host."""
        took = (time.monotonic() - self._began) / _MINUTE
        return (
            f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
            f"Python {platform.python_version()}, PostgreSQL {major}; load {self._load:.1f} at the start "
            f"and {os.getloadavg()[0]:.1f} at the end, {took:.1f} minutes later"
        )


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A title and aligned columns: names to the left, figures to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([title, *(_line(cells, widths) for cells in lines)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "  ".join(aligned).rstrip()


def figures(title: str, counted: Mapping[str, int]) -> str:
    """A table of names and counts."""
    return table(title, ("", ""), [(name, f"{count:,}") for name, count in counted.items()])


def figure(value: float, unit: str, digits: int = 1) -> str:
    """`1,234.5 ms`."""
    return f"{value:,.{digits}f} {unit}"


def milliseconds(seconds: float, digits: int = 1) -> str:
    """Seconds as `1,234.5 ms`."""
    return figure(1000 * seconds, "ms", digits)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[max(0, round(share * len(values) + 0.5) - 1)] if values else float("nan")


def tail(values: Sequence[float]) -> tuple[str, str, str]:
    """Median, p95 and maximum of seconds, as milliseconds."""
    if not values:
        return NOTHING, NOTHING, NOTHING
    return milliseconds(median(values)), milliseconds(quantile(values, 0.95)), milliseconds(max(values))


def ratios(values: Sequence[float]) -> tuple[str, str, str]:
    """Median, p10 and p90; one value alone has no spread."""
    if len(values) == 1:
        return f"{values[0]:.2f}", NOTHING, NOTHING
    return f"{median(values):.2f}", f"{quantile(values, 0.1):.2f}", f"{quantile(values, 0.9):.2f}"


def at_most(hits: int, of: int) -> float:
    """The share that is not exceeded, with 95 % confidence, after this many hits (Poisson)."""
    # The cube root of such a count is nearly normal (Wilson and Hilferty), to within 1 %.
    mean = hits + 1
    root = 1 - 1 / (9 * mean) + _ONE_SIDED_95 / (3 * math.sqrt(mean))
    return min(1.0, mean * root**3 / of) if of else 1.0
