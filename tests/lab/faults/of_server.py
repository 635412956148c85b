"""Faults of the server: restarts, crashes, freezes, full slots, and other servers in its place."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Final

from reaper.demo.server import StopMode
from tests.conftest import MAJORS
from tests.lab.clients.kinds import FILLER, PROBE, ClientKind
from tests.lab.clients.session import ClientSession, NotServed
from tests.lab.world.observe import signal
from tests.lab.world.server import LabServer
from tests.postgres.majors import installation, tool

from .rounds import Fault, fault
from .world import SETTINGS, FaultWorld

_PATIENCE: Final = 13.0
"""Longer than a reaper waits for its server process."""
_RETRY: Final = 0.05


def _restart(mode: StopMode) -> Fault:
    @fault(f"server restart, {mode}", "server")
    async def restart(world: FaultWorld) -> AsyncIterator[None]:
        # Stopped for a while: a restart in one go is over too soon for some reapers.
        try:
            await asyncio.to_thread(world.server.shut_down, mode, "immediate")
            yield
        finally:
            await asyncio.to_thread(world.server.start)

    return restart


@fault("crash of a server process", "server")
async def backend_crash(world: FaultWorld) -> AsyncIterator[None]:
    """The server ends all other sessions after the crash of one, and recovers by itself."""
    try:
        async with world.admin() as admin:
            await admin.execute("SELECT 1")
            signal(admin.info.backend_pid, SIGKILL)
        yield
    finally:
        await world.execute("SELECT 1")


@fault("postmaster frozen", "server")
async def frozen_postmaster(world: FaultWorld) -> AsyncIterator[None]:
    """New connections are not accepted, and open ones work on."""
    pid = world.server.postmaster
    try:
        signal(pid, SIGSTOP)
        if world.dice.random() < 0.5:
            world.proxy.reset()  # the reaper has to connect again
        await asyncio.sleep(world.dice.uniform(0, 6))
        yield
    finally:
        signal(pid, SIGCONT)


@fault("the reaper's server process frozen", "server")
async def frozen_backend(world: FaultWorld) -> AsyncIterator[None]:
    """Every other time for longer than the reaper waits."""
    frozen = await world.reaper_backends()
    try:
        for each in frozen:
            signal(each.pid, SIGSTOP)
        await asyncio.sleep(_PATIENCE if world.dice.random() < 0.5 else 0)
        yield
    finally:
        for each in frozen:
            signal(each.pid, SIGCONT)


def _full_slots(name: str, kind: ClientKind) -> Fault:
    @fault(name, "slots")
    async def full_slots(world: FaultWorld) -> AsyncIterator[None]:
        sessions: list[ClientSession] = []

        async def fill() -> None:
            """Open sessions until there is no slot left, again and again."""
            while True:
                with suppress(NotServed):
                    while True:
                        sessions.append(await world.clients.open(name, kind))
                await asyncio.sleep(_RETRY)

        filling = asyncio.create_task(fill())
        try:
            if world.dice.random() < 0.5:
                world.proxy.reset()  # the reaper has to connect again
            await asyncio.sleep(world.dice.uniform(1.0, 5.0))
            yield
        finally:
            filling.cancel()
            with suppress(asyncio.CancelledError):
                await filling
            world.notes[f"sessions that filled the slots: {name}"] += len(sessions)
            for session in sessions:
                session.close()

    return full_slots


class Standby(LabServer):
    """A server that begins as a copy of another one, and follows it."""

    def __init__(self, primary: LabServer) -> None:
        super().__init__(primary.major, **SETTINGS)
        self._primary = primary

    def prepare(self) -> None:
        """Do nothing: the roles are copied."""

    def _initialise(self) -> None:
        copy = tool("pg_basebackup", major=self._primary.major)
        assert copy, "no pg_basebackup is installed for this major"
        address = ("-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres")
        self._run(str(copy), *address, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        shutil.rmtree(self.csv_log.parent)  # the primary's log counts once


@fault("promotion of a standby", "server", "slots", "role")
async def promotion(world: FaultWorld) -> AsyncIterator[None]:
    """The primary is lost, a standby is promoted, and all clients follow."""
    old, standby = world.server, Standby(world.server)
    await asyncio.to_thread(standby.start)
    world.adopt(standby)
    try:
        await asyncio.to_thread(old.shut_down, world.dice.choice(("fast", "immediate")), "immediate")
        if world.dice.random() < 0.5:
            world.follow(standby)  # before the promotion: the reaper may connect too early
            await asyncio.sleep(world.dice.uniform(0.0, 3.0))
        await asyncio.to_thread(standby.run, "SELECT pg_promote()")
        world.follow(standby)
        yield
    finally:
        world.follow(standby)
        await asyncio.to_thread(world.retire, old)


@fault(
    "another major after a restart",
    *("server", "slots", "role"),
    prepare=lambda: [installation(major) for major in MAJORS],
)
async def other_major(world: FaultWorld) -> AsyncIterator[None]:
    """After a restart a PostgreSQL of another major is on the same port, and later the old one again."""
    old = world.server
    major = world.dice.choice([each for each in MAJORS if each != old.major])
    new = LabServer(major, **SETTINGS)
    new.port = old.port
    world.notes[f"another major after a restart: {major}"] += 1
    try:
        await asyncio.to_thread(old.shut_down, "fast", "immediate")
        await world.serve(new)
        yield
    finally:
        world.follow(old)
        await asyncio.to_thread(world.retire, new)
        await asyncio.to_thread(old.start)


FAULTS: Final[Sequence[Fault]] = (
    _restart("fast"),
    _restart("immediate"),
    backend_crash,
    frozen_postmaster,
    frozen_backend,
    _full_slots("slots full", FILLER),
    _full_slots("slots full of leaks", PROBE),
    promotion,
    other_major,
)
