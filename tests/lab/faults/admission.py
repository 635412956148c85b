"""What it takes to be let in: a name that can be found, a certificate that holds, a password."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trustme
from psycopg.conninfo import make_conninfo

from reaper.telemetry import events
from tests.postgres.tls import Front, issued, root_of

from .campaign import NewFault
from .contract import Excuse
from .decrees import decree, swap
from .place import Place
from .watch import Bite
from .world import ROLE, World

_HELD: Final = (0.0, 5.0)
_NAME: Final = "db.reaper.test"
_ENTRY: Final = f"127.0.0.1 {_NAME}\n"
_ALSO_AWAY: Final = (events.SERVER_UNREACHABLE, events.SERVER_DENIED)


async def _led_by(world: World, fault: str, dsn: str) -> None:
    """Lead the reapers in by another way, and wait until one has come that way."""
    bite = Bite(world, events.LEADS)
    decree(world, dsn=dsn)
    await bite.awaited(f"{fault}: led in that way")


class LostName:
    """The name of the server's host can no longer be resolved."""

    name = "DNS gone"
    touches = frozenset({"policies", "line"})
    excuse = Excuse.NOTHING

    def missing(self, place: Place) -> str:
        return "" if place.hosts else "root, for a file of host names of its own"

    async def inflict(self, world: World) -> None:
        hosts = world.place.hosts
        assert hosts
        hosts.write_text(hosts.read_text(encoding="utf-8") + _ENTRY, encoding="utf-8")
        await _led_by(world, self.name, make_conninfo(world.way_in, host=_NAME, hostaddr=None))
        bite = Bite(world, *_ALSO_AWAY, says="resol")
        _forget_name(hosts)
        world.line.reset()
        await bite.awaited(self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))
        hosts.write_text(hosts.read_text(encoding="utf-8") + _ENTRY, encoding="utf-8")
        back = Bite(world, events.LEADS)
        await back.awaited(f"{self.name}: back before the mending")

    async def mend(self, world: World) -> None:
        decree(world)
        if world.place.hosts:
            _forget_name(world.place.hosts)


def _forget_name(hosts: Path) -> None:
    text = hosts.read_text(encoding="utf-8")
    hosts.write_text(text.replace(_ENTRY, ""), encoding="utf-8")  # in place: it is mounted


class ExpiredCertificate:
    """The server's certificate has expired, and is renewed later."""

    name = "certificate expired"
    touches = frozenset({"policies"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._front: Front | None = None

    async def inflict(self, world: World) -> None:
        authority = trustme.CA()
        self._front = front = Front(world.line.dsn(), issued(authority))
        front.__enter__()
        root = root_of(authority, world.folder)
        await _led_by(world, self.name, front.guarded(world.way_in, root))
        bite = Bite(world, *_ALSO_AWAY, says="certificate")
        front.present(issued(authority, valid=(-2, -1)))
        world.line.reset()
        await bite.awaited(self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))
        back = Bite(world, events.LEADS)
        front.present(issued(authority))
        await back.awaited(f"{self.name}: back before the mending")

    async def mend(self, world: World) -> None:
        decree(world)
        world.line.reset()  # a connection through the front would keep it
        if self._front:
            await asyncio.to_thread(self._front.__exit__)


class RotatedPassword:
    """The role's password is changed, and the passfile of the reaper only later."""

    name = "password rotated"
    touches = frozenset({"policies", "role", "server", "slots"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._rules = ""
        self._password = ""

    async def inflict(self, world: World) -> None:
        passfile = world.folder / "passfile"
        await self._rotate(world)
        await self._ask_for_passwords(world)
        _tell(passfile, self._password)
        await _led_by(world, self.name, make_conninfo(world.way_in, passfile=str(passfile)))
        bite = Bite(world, *_ALSO_AWAY, says="password")
        await self._rotate(world)
        world.line.reset()
        await bite.awaited(self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))
        back = Bite(world, events.LEADS)
        _tell(passfile, self._password)
        await back.awaited(f"{self.name}: back before the mending")

    async def mend(self, world: World) -> None:
        decree(world)
        if self._rules:
            (world.server.data / "pg_hba.conf").write_text(self._rules, encoding="utf-8")
            await world.execute("SELECT pg_reload_conf()", f"ALTER ROLE {ROLE} PASSWORD NULL")

    async def _rotate(self, world: World) -> None:
        self._password = f"rotated-{world.dice.getrandbits(64):x}"
        await world.execute(
            "SET password_encryption = 'scram-sha-256'", f"ALTER ROLE {ROLE} PASSWORD '{self._password}'"
        )

    async def _ask_for_passwords(self, world: World) -> None:
        path = world.server.data / "pg_hba.conf"
        self._rules = path.read_text(encoding="utf-8")
        path.write_text(f"host all {ROLE} all scram-sha-256\n{self._rules}", encoding="utf-8")
        await world.execute("SELECT pg_reload_conf()")


def _tell(passfile: Path, password: str) -> None:
    swap(passfile, f"*:*:*:{ROLE}:{password}\n", mode=0o600)


FAULTS: Final[Sequence[NewFault]] = (LostName, ExpiredCertificate, RotatedPassword)
