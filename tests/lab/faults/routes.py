"""The way from the reaper to the server: cut, reset, silent, lossy, or with a pooler in between."""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from reaper.demo.server import free_ports
from reaper.telemetry import events

from .campaign import NewFault
from .contract import Excuse
from .patience import until
from .place import Place, drop_packets
from .servers import Server
from .watch import Bite, truce
from .world import ROLE, World

_HELD: Final = (0.0, 5.0)
_AWAY: Final = (events.SERVER_UNREACHABLE, events.CYCLE_FAILED)
_PERHAPS: Final = 0.5
_BRIEF: Final = 3.0
_LIMITS: Final = 4.0
_CONFIGURATION: Final = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = {mode}
ignore_startup_parameters = {ignored}
"""


class CutLine:
    """Its connection is ended, and no other one is accepted."""

    name = "link cut"
    touches = frozenset({"line"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        bite = Bite(world, *_AWAY)
        world.line.cut()
        await bite.awaited(self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))

    async def mend(self, world: World) -> None:
        world.line.restore()


class ResetLine:
    """Its connection is ended without a farewell, again and again at any moment of a cycle."""

    name = "link reset"
    touches = frozenset({"line"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        bite = Bite(world, *_AWAY)
        for _ in range(world.size.blows):
            world.line.reset()
            await asyncio.sleep(world.dice.uniform(0, _BRIEF))
        await bite.awaited(self.name)

    async def mend(self, _: World) -> None:
        """There is nothing to be mended: the next connection is welcome."""


class HalfOpenLine:
    """What it sends is acknowledged, and goes nowhere; later all of it may arrive at once."""

    name = "link half-open"
    touches = frozenset({"line"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        if world.dice.random() < _PERHAPS:
            for _ in range(world.size.blows):  # hiccups that it must not even notice
                world.line.go_deaf()
                await asyncio.sleep(world.dice.uniform(0, 1))
                world.line.restore()
                await asyncio.sleep(world.dice.uniform(0, 1))
        bite = Bite(world, *_AWAY)
        world.line.go_deaf()
        await bite.awaited(self.name)

    async def mend(self, world: World) -> None:
        world.line.restore()


class LostPackets:
    """Every packet vanishes, in both directions."""

    name = "packets dropped"
    touches = frozenset({"line"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._port = 0

    def missing(self, place: Place) -> str:
        return "" if place.own_network else "root, ip and iptables"

    async def inflict(self, world: World) -> None:
        bite = Bite(world, *_AWAY)
        drop_packets(world.line.port, begin=True)
        self._port = world.line.port
        await bite.awaited(self.name)

    async def mend(self, _: World) -> None:
        if self._port:
            drop_packets(self._port, begin=False)


class Pooler:
    """PgBouncer comes in between, and the reaper refuses to work through it."""

    name = "PgBouncer in between"
    touches = frozenset({"line", "server"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._bouncer: subprocess.Popen[bytes] | None = None

    def missing(self, _: Place) -> str:
        return "" if shutil.which("pgbouncer") else "pgbouncer"

    async def inflict(self, world: World) -> None:
        port = await self._started(world)
        bite = Bite(world, events.SERVER_DENIED, says="pooler")
        world.line.point_at(make_conninfo(world.server.dsn, port=port))
        world.line.reset()
        if await bite.awaited(self.name):
            async with truce(world, "through a pooler"):
                await asyncio.sleep(_LIMITS)

    async def mend(self, world: World) -> None:
        world.line.point_at(world.server.dsn)
        world.line.reset()
        if self._bouncer:
            self._bouncer.kill()
            self._bouncer.wait()

    async def _started(self, world: World) -> int:
        folder, port = world.server.folder, next(free_ports())
        values = {"folder": folder, "port": port, "server": world.server.port}
        # One that hands on what it is asked for, and one that objects to it.
        ignored = world.dice.choice(("extra_float_digits,options", "extra_float_digits"))
        mode = world.dice.choice(("session", "transaction"))
        (folder / "users.txt").write_text(f'"{ROLE}" ""\n', encoding="ascii")
        configuration = folder / "pgbouncer.ini"
        text = _CONFIGURATION.format(**values, ignored=ignored, mode=mode)
        configuration.write_text(text, encoding="ascii")
        world.count(f"PgBouncer, {mode} mode, {'lenient' if 'options' in ignored else 'strict'}")
        self._bouncer = await asyncio.to_thread(_launched, world.server, configuration)
        await until(lambda: _says(folder / "pgbouncer.log", "process up"))
        return port


def _launched(server: Server, configuration: Path) -> subprocess.Popen[bytes]:
    with configuration.with_name("pgbouncer.log").open("ab") as log:
        # A program of this machine, and our own file; it does not run as root.
        return subprocess.Popen(
            [shutil.which("pgbouncer") or "pgbouncer", configuration],
            stdout=log,
            stderr=log,
            user=server._user.uid,
            group=server._user.gid,
            extra_groups=[],
        )


def _says(log: Path, what: str) -> bool:
    return what in log.read_text(encoding="utf-8", errors="replace")


FAULTS: Final[Sequence[NewFault]] = (CutLine, ResetLine, HalfOpenLine, LostPackets, Pooler)
