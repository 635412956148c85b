"""The slots of the server are taken by others."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from .campaign import NewFault
from .contract import Excuse
from .load import CROWD, PROBE, Kind
from .wire import Line, NotServed
from .world import World

_HELD: Final = (1.0, 5.0)
_AGAIN: Final = 0.05


class _Crowd:
    touches = frozenset({"slots"})
    excuse = Excuse.NOTHING
    name: str
    kind: Kind

    def __init__(self) -> None:
        self._lines: list[Line] = []

    async def inflict(self, world: World) -> None:
        await self._fill(world)
        if world.dice.random() < 0.5:
            world.line.reset()  # whoever wants to be inside must come in now
        held = asyncio.create_task(self._keep_full(world), name=self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))
        held.cancel()
        with suppress(asyncio.CancelledError):
            await held

    async def mend(self, world: World) -> None:
        world.count(f"sessions that filled the slots: {self.name}", len(self._lines))
        for line in self._lines:
            await line.close()

    async def _keep_full(self, world: World) -> None:
        while True:
            await asyncio.sleep(_AGAIN)
            await self._fill(world)

    async def _fill(self, world: World) -> None:
        """Come in until there is no more room, or no server."""
        with suppress(NotServed):
            while True:
                self._lines.append(await world.load.open(self.name, self.kind))


class Crowd(_Crowd):
    """By sessions that no policy is about: only they can make room."""

    name = "slots full"
    kind = CROWD


class Leaks(_Crowd):
    """By leaked sessions: the reaper makes room itself."""

    name = "slots full of leaks"
    kind = PROBE


FAULTS: Final[Sequence[NewFault]] = (Crowd, Leaks)
