"""Plain tables, and the figures that stand in them."""

from collections.abc import Sequence
from statistics import median
from typing import Final

NOTHING: Final = "-"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A title and aligned columns: names to the left, figures to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([title, *(_line(cells, widths) for cells in lines)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "  ".join(aligned).rstrip()


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[max(0, round(share * len(values) + 0.5) - 1)] if values else float("nan")


def spread(values: Sequence[float], unit: str, digits: int = 1) -> tuple[str, str, str]:
    """Minimum, median and maximum."""
    if not values:
        return (NOTHING,) * 3
    return (
        figure(min(values), unit, digits),
        figure(median(values), unit, digits),
        figure(max(values), unit, digits),
    )


def tail(values: Sequence[float], unit: str, digits: int = 1) -> tuple[str, str, str]:
    """The median, p95 and the maximum."""
    if not values:
        return (NOTHING,) * 3
    return (
        figure(median(values), unit, digits),
        figure(quantile(values, 0.95), unit, digits),
        figure(max(values), unit, digits),
    )


def figure(value: float, unit: str, digits: int = 1) -> str:
    """`1,234.5 ms`."""
    return f"{value:,.{digits}f} {unit}"
