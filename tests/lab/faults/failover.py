"""Another server takes over: a standby that is promoted, or one of another major."""

import asyncio
from collections.abc import Sequence
from typing import Final

import psycopg

from tests.conftest import MAJORS
from tests.postgres.majors import installation, tool

from .campaign import NewFault
from .contract import Excuse
from .servers import Server
from .world import SETTINGS, World

_HELD: Final = (0.0, 3.0)


class Standby(Server):
    """A server that begins as a copy of another one, and follows it."""

    def __init__(self, primary: Server) -> None:
        super().__init__(binaries=primary.binaries, settings=SETTINGS)
        self._primary = primary

    def _initialise(self) -> None:
        copy = tool("pg_basebackup", major=self._primary.major)
        assert copy, "no pg_basebackup is installed for this major"
        way = ["-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres"]
        self._run(str(copy), *way, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def promote(self) -> None:
        """Let it be a primary."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")


class Promotion:
    """The primary dies, a standby is promoted, and everybody is led to it."""

    name = "promotion of a standby"
    touches = frozenset({"server", "slots", "role"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._old: Server | None = None

    async def inflict(self, world: World) -> None:
        old, standby = world.server, Standby(world.server)
        await asyncio.to_thread(standby.start)
        world.adopt(standby)
        await asyncio.to_thread(old.shut_down, world.dice.choice(("fast", "immediate")), "immediate")
        self._old = old
        if world.dice.random() < 0.5:
            world.follow(standby)  # while it still is a standby: the reaper may come too early
            await asyncio.sleep(world.dice.uniform(*_HELD))
        await asyncio.to_thread(standby.promote)
        world.follow(standby)

    async def mend(self, world: World) -> None:
        if self._old:
            await asyncio.to_thread(world.retire, self._old)


class OtherMajor:
    """After a restart it is a PostgreSQL of another major, on the same port, and later the old one again."""

    name = "another major after a restart"
    touches = frozenset({"server", "slots", "role"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._old: Server | None = None
        self._new: Server | None = None

    def fetch(self) -> None:
        """All of them, for who knows which one it will be."""
        for major in MAJORS:
            installation(major)

    async def inflict(self, world: World) -> None:
        self._old = world.server
        major = world.dice.choice([each for each in MAJORS if each != self._old.major])
        self._new = Server(binaries=await asyncio.to_thread(installation, major), settings=SETTINGS)
        self._new.port = self._old.port
        await asyncio.to_thread(self._old.shut_down, "fast", "immediate")
        await world.serve(self._new)
        world.count(f"another major after a restart: {major}")

    async def mend(self, world: World) -> None:
        if self._old and self._new:
            world.follow(self._old)
            await asyncio.to_thread(world.retire, self._new)
            await asyncio.to_thread(self._old.start)


FAULTS: Final[Sequence[NewFault]] = (Promotion, OtherMajor)
