"""The server ends, in the ways in which servers end, and comes back."""

import asyncio
from collections.abc import Sequence
from signal import SIGKILL
from typing import Final

from reaper.demo.server import StopMode

from .campaign import NewFault
from .contract import Excuse
from .world import World, signal


class _Restart:
    touches = frozenset({"server"})
    excuse = Excuse.NOTHING
    name: str
    mode: StopMode

    async def inflict(self, world: World) -> None:
        # Half of the times it is away for a while; a restart in one go is over too soon for some.
        await asyncio.to_thread(world.server.shut_down, self.mode, "immediate")

    async def mend(self, world: World) -> None:
        await asyncio.to_thread(world.server.start)


class FastRestart(_Restart):
    """Every session is ended in an orderly way."""

    name = "server restart, fast"
    mode = "fast"


class ImmediateRestart(_Restart):
    """As after a power cut: the server recovers from its write-ahead log."""

    name = "server restart, immediate"
    mode = "immediate"


class CrashOfABackend:
    """One backend dies, and the server ends all the others to be safe."""

    name = "crash of a backend"
    touches = frozenset({"server"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        async with world.admin() as admin:
            await admin.execute("SELECT 1")
            signal(admin.info.backend_pid, SIGKILL)

    async def mend(self, world: World) -> None:
        """It mends itself; wait until it lets anybody in."""
        await world.execute("SELECT 1")


FAULTS: Final[Sequence[NewFault]] = (FastRestart, ImmediateRestart, CrashOfABackend)
