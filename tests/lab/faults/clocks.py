"""Clocks are stepped: that of the server, and that of the reaper's host."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM
from typing import Final

from reaper.telemetry import events
from tests.lab.benchmarks.ground import CYCLED

from .campaign import NewFault
from .contract import Excuse
from .load import LIMIT
from .patience import until
from .place import Place
from .replica import Replica
from .servers import Server
from .watch import Bite
from .world import World

_RIGHT: Final = "+0"
_AWAIT: Final = 30.0
_FAR: Final = 3_600.0
_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
# A statement that sleeps until a moment of the clock sleeps on for hours when that is set back.
_WAKE_SLEEPERS: Final = (
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'pg_sleep'"
    " AND pid <> pg_backend_pid()"
)


def _library(name: str) -> Path | None:
    found = (path for folder in _FOLDERS for path in Path(folder).glob(f"**/faketime/{name}"))
    return next(found, None)


class _Clock:
    """The clock that a program sees, set by a file; its monotonic clock goes on as that of a kernel does."""

    def __init__(self, file: Path, library: str) -> None:
        self._file = file
        self._library = library

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(_library(self._library)),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        beside = self._file.with_name(f".{self._file.name}.new")
        beside.write_text(f"{offset}\n", encoding="ascii")
        beside.chmod(0o644)
        beside.replace(self._file)


class _Step:
    excuse = Excuse.NOTHING
    name: str
    offset: str

    def missing(self, _: Place) -> str:
        return "" if _library("libfaketime.so.1") else "libfaketime"


class _ServerStep(_Step):
    """All ages on the server jump at once, and the sessions' clients are as busy as they were."""

    touches = frozenset({"clock", "server", "reaper"})

    def __init__(self) -> None:
        self._server: Server | None = None

    async def inflict(self, world: World) -> None:
        self._server = server = world.server
        # With threads in mind it would lock, and PostgreSQL asks for the time in signal handlers as well.
        clock = _Clock(server.folder / "clock", "libfaketime.so.1")
        clock.set(_RIGHT)
        server.environment.update(clock.environment)
        await self._restart(world, server)
        for offset in (self.offset, _RIGHT):
            await asyncio.sleep(LIMIT * world.dice.uniform(1, 3))
            bite = Bite(world, events.CLOCK_STEPPED)
            clock.set(offset)
            await world.execute(_WAKE_SLEEPERS)
            await bite.awaited(self.name)

    async def mend(self, _: World) -> None:
        if self._server:
            self._server.environment.clear()
            await asyncio.to_thread(self._server.restart)

    async def _restart(self, world: World, server: Server) -> None:
        bite = Bite(world, *CYCLED)
        await asyncio.to_thread(server.restart)
        await until(lambda: bite.felt)


class _HostStep(_Step):
    """The clock by which the reaper writes its log and its record; it decides nothing."""

    touches = frozenset({"clock", "reaper"})

    def __init__(self) -> None:
        self._replica: Replica | None = None

    async def inflict(self, world: World) -> None:
        self._replica = replica = world.leader
        clock = _Clock(replica.folder / "clock", "libfaketimeMT.so.1")
        clock.set(_RIGHT)
        replica.environment.update(clock.environment)
        await _begin_anew(replica)
        alarm = Bite(world, events.CLOCK_STEPPED)
        for offset in (self.offset, _RIGHT):
            bite = Bite(world, events.CYCLE_ACTED)
            clock.set(offset)
            await bite.awaited(self.name)
            world.count(f"was as wrong as it should be: {self.name}", _is_off(replica) == (offset != _RIGHT))
            await asyncio.sleep(LIMIT * world.dice.uniform(0, 2))
        world.count(f"alarms by a reaper that nothing had alarmed: {self.name}", alarm.felt)

    async def mend(self, _: World) -> None:
        if self._replica:
            for name in ("LD_PRELOAD", *(each for each in self._replica.environment if "FAKETIME" in each)):
                self._replica.environment.pop(name, None)
            await _begin_anew(self._replica)


def _is_off(replica: Replica) -> bool:
    """Whether its last word is dated far from now."""
    return abs(replica.daemon.journal.events[-1].at - time.time()) > _FAR


async def _begin_anew(replica: Replica) -> None:
    ends = len(replica.ends)
    replica.send(SIGTERM)
    await until(lambda: len(replica.ends) > ends and replica.daemon.running, within=_AWAIT)
    await replica.up()


class ServerForward(_ServerStep):
    name = "server's clock +2 h"
    offset = "+2h"


class ServerBack(_ServerStep):
    name = "server's clock -2 h"
    offset = "-2h"


class ServerTomorrow(_ServerStep):
    name = "server's clock +1 day"
    offset = "+1d"


class HostForward(_HostStep):
    name = "reaper's clock +2 h"
    offset = "+2h"


class HostBack(_HostStep):
    name = "reaper's clock -2 h"
    offset = "-2h"


class HostTomorrow(_HostStep):
    name = "reaper's clock +1 day"
    offset = "+1d"


FAULTS: Final[Sequence[NewFault]] = (
    ServerForward,
    ServerBack,
    ServerTomorrow,
    HostForward,
    HostBack,
    HostTomorrow,
)
