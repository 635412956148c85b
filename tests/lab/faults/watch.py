"""What is watched while a fault lasts: that it is felt, and that nobody acts who must not."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from .notes import Truce
from .patience import LONG, until
from .world import World

_ON_ITS_WAY: Final = 1.0
"""Seconds for which what was sent before may still take effect."""


class Bite:
    """Whether a reaper that acts says that it feels the fault, from now on."""

    def __init__(self, world: World, *names: str, says: str = "") -> None:
        self._world = world
        self._names = names
        self._says = says
        journals = [each.daemon.journal for each in world.reapers if each is not world.witness]
        self._known = [(journal, len(journal.events)) for journal in journals]

    @property
    def felt(self) -> bool:
        """Whether one has said it by now."""
        new = (event for journal, known in self._known for event in journal.events[known:])
        return any(event.name in self._names and self._says in str(event.fields) for event in new)

    async def awaited(self, fault: str, *, within: float = LONG) -> bool:
        """Wait until it is felt, and note whether it was: another fault may be in the way."""
        with suppress(TimeoutError):
            await until(lambda: self.felt, within=within)
        self._world.felt[fault, self.felt] += 1
        return self.felt


@asynccontextmanager
async def truce(world: World, why: str) -> AsyncIterator[None]:
    """A time in which no reaper may terminate anybody; the judge holds them to it."""
    since = time.time() + _ON_ITS_WAY
    try:
        yield
    finally:
        world.truces.append(Truce(why=why, since=since, until=time.time()))
