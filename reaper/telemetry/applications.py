"""The applications that have a label of their own: few, however many names clients invent over time.

Every name that was ever a label is a series that the scraper keeps; the largest ten at each look are not few
when clients put a number into their name.
"""

from collections.abc import Collection, Sequence
from typing import Final

MOST_NAMES: Final = 100
KEPT_SECONDS: Final = 86_400.0
"""A name that was not among the largest for a day gives its place away."""


class Applications:
    """The names that were shown within the last day; there is room for so many, and no more."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def admit(self, names: Sequence[str], now: float) -> Collection[str]:
        """Those of these names that are shown already, or for which there is room."""
        self._shown = {name: last for name, last in self._shown.items() if now - last < KEPT_SECONDS}
        for name in names:
            if name in self._shown or len(self._shown) < MOST_NAMES:
                self._shown[name] = now
        return [name for name in names if name in self._shown]
