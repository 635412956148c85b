"""Parts of the server stand still, and go on."""

import asyncio
from collections.abc import Sequence
from signal import SIGCONT, SIGSTOP
from typing import Final

from .campaign import NewFault
from .contract import Excuse
from .server_log import Who
from .world import World, signal

_WATCHDOG: Final = 13.0


class FrozenPostmaster:
    """Nobody is let in; whoever is inside works on."""

    name = "postmaster frozen"
    touches = frozenset({"server"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._pid = 0

    async def inflict(self, world: World) -> None:
        self._pid = world.postmaster
        signal(self._pid, SIGSTOP)
        if world.dice.random() < 0.5:
            world.line.reset()  # and the reaper is outside
        await asyncio.sleep(world.dice.uniform(0, 6))

    async def mend(self, _: World) -> None:
        if self._pid:
            signal(self._pid, SIGCONT)


class FrozenBackend:
    """The reaper's own server process stands still; every other time for longer than its patience."""

    name = "the reaper's server process frozen"
    touches = frozenset({"server"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._frozen: list[Who] = []

    async def inflict(self, world: World) -> None:
        self._frozen = await world.backends()
        for who in self._frozen:
            signal(who.pid, SIGSTOP)
        await asyncio.sleep(_WATCHDOG if world.dice.random() < 0.5 else 0)

    async def mend(self, _: World) -> None:
        for who in self._frozen:
            signal(who.pid, SIGCONT)


FAULTS: Final[Sequence[NewFault]] = (FrozenPostmaster, FrozenBackend)
