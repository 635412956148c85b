"""Somebody who looks at every page of every reaper, again and again, whatever befalls them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from .replica import PAGES, Replica

_BETWEEN: Final = 0.3
_NEVER: Final = (404, 500)
"""Whoever is in trouble says so with 503, or does not answer."""


class Visitor:
    """Asks, and counts the answers."""

    def __init__(self, reapers: Sequence[Replica]) -> None:
        self._reapers = reapers
        self.answers = Counter[tuple[str, int]]()
        """By page and status; 0 is none."""

    async def run(self) -> None:
        """Look at all of them for ever."""
        while True:
            for replica in [each for each in self._reapers if each.in_service]:
                for page in PAGES:
                    status, _ = await replica.page(page)
                    self.answers[page, status] += 1
            await asyncio.sleep(_BETWEEN)

    @property
    def wrong(self) -> list[str]:
        """Answers that nobody should ever get."""
        found = sorted(self.answers.items())
        return [f"/{page} answered {status}, times {n}" for (page, status), n in found if status in _NEVER]
