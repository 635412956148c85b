"""How sure one may be of a share that was counted."""

import math
from typing import Final

_DOUBT: Final = 0.05


def at_most(hits: int, of: int) -> float:
    """The share that is not exceeded, with 95 % confidence, when so many of so many were hit."""
    low, high = float(hits), 2.0 * hits + 10.0
    for _ in range(60):
        mean = (low + high) / 2
        low, high = (mean, high) if _no_more_than(hits, mean) > _DOUBT else (low, mean)
    return min(1.0, high / of) if of else 1.0


def _no_more_than(hits: int, mean: float) -> float:
    """The chance of so few hits when so many are to be expected (Poisson)."""
    if mean == 0:
        return 1.0
    return sum(math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) for n in range(hits + 1))
