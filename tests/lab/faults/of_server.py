"""Faults of the server and of the reaper's role: restarts, full slots, other servers, rights, logins."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.demo.server import StopMode
from reaper.telemetry import events
from tests.conftest import MAJORS
from tests.lab.clients.kinds import FILLER, PROBE, ClientKind
from tests.lab.clients.session import ClientSession, NotServed
from tests.lab.world.isolation import Isolation
from tests.lab.world.observe import signal
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.majors import installation, tool

from .rounds import Fault, fault
from .world import SETTINGS, Expectation, FaultWorld

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
        world.reset_sometimes()
        await world.hold(0, 6)
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
            world.reset_sometimes()
            await world.hold(1.0, 5.0)
            yield
        finally:
            filling.cancel()
            with suppress(asyncio.CancelledError):
                await filling
            world.notes[f"sessions that filled the slots: {name}"] += len(sessions)
            for session in sessions:
                session.close()

    return full_slots


class StandbyServer(LabServer):
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
    old, standby = world.server, StandbyServer(world.server)
    await asyncio.to_thread(standby.start)
    world.adopt(standby)
    try:
        await asyncio.to_thread(old.shut_down, world.dice.choice(("fast", "immediate")), "immediate")
        if world.dice.random() < 0.5:
            world.follow(standby)  # before the promotion: the reaper may connect too early
            await world.hold(0.0, 3.0)
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


# The reaper's role and its login

_UNREACHABLE: Final = (events.SERVER_UNREACHABLE, events.SERVER_DENIED)
_HOST: Final = "db.reaper.test"
_HOSTS_LINE: Final = f"127.0.0.1 {_HOST}\n"
_SINCE_15: Final = {"idle_session_timeout", "stats_fetch_consistency"}
_RIGHTS: Final = {
    "pg_signal_backend": (f"REVOKE pg_signal_backend FROM {REAPER}", f"GRANT pg_signal_backend TO {REAPER}"),
    "pg_read_all_stats": (f"REVOKE pg_read_all_stats FROM {REAPER}", f"GRANT pg_read_all_stats TO {REAPER}"),
    "LOGIN": (f"ALTER ROLE {REAPER} NOLOGIN", f"ALTER ROLE {REAPER} LOGIN"),
    "connections": (f"ALTER ROLE {REAPER} CONNECTION LIMIT 0", f"ALTER ROLE {REAPER} CONNECTION LIMIT -1"),
    "CONNECT": (
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO app, other",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
    ),
}
_ROLE_SETTINGS: Final = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "200ms",
    "stats_fetch_consistency": "snapshot",
    "role": "other",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "search_path": "nowhere",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "enable_material": "off",
    "enable_seqscan": "off",
    "row_security": "off",
    "standard_conforming_strings": "off",
}


@fault("pg_authid locked", "role")
async def locked_roles(world: FaultWorld) -> AsyncIterator[None]:
    """A superuser locks the catalog that every observation and every login reads."""
    async with AsyncExitStack() as stack:
        with suppress(psycopg.OperationalError):
            admin = await stack.enter_async_context(world.admin())
            await admin.execute("BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        world.reset_sometimes(0.3)
        await world.hold(0.5, 8.0)
        yield


@asynccontextmanager
async def _changed(world: FaultWorld, note: str, change: str, back: str) -> AsyncIterator[None]:
    world.notes[note] += 1
    try:
        await world.execute(change)
        world.reset_sometimes()
        await world.hold(0.5, 8.0)
        yield
    finally:
        await world.execute(back)


@fault("right revoked", "role")
async def revoked_right(world: FaultWorld) -> AsyncIterator[None]:
    """A right is revoked, and granted again."""
    name = world.dice.choice(list(_RIGHTS))
    async with _changed(world, f"right revoked: {name}", *_RIGHTS[name]):
        yield


@fault("ALTER ROLE ... SET", "role")
async def role_setting(world: FaultWorld) -> AsyncIterator[None]:
    """The reaper's role gets a setting that does not suit it."""
    name = world.dice.choice(list(_ROLE_SETTINGS))
    if name in _SINCE_15 and world.server.major < 15:
        name = "statement_timeout"
    change = f"ALTER ROLE {REAPER} SET {name} = '{_ROLE_SETTINGS[name]}'"
    back = f"ALTER ROLE {REAPER} RESET {name}"
    async with _changed(world, f"ALTER ROLE ... SET: {name} = {_ROLE_SETTINGS[name]}", change, back):
        yield


def _no_hosts(place: Isolation) -> str:
    return "" if place.hosts else "root, for a file of host names of its own"


@fault("DNS gone", "policies", "link", missing=_no_hosts)
async def lost_name(world: FaultWorld) -> AsyncIterator[None]:
    """The server's host name can no longer be resolved."""
    hosts = world.place.hosts
    assert hosts
    try:
        _write_name(hosts)
        leads = Expectation(world, events.LEADS)
        world.change_rules(dsn=make_conninfo(world.dsn, host=_HOST, hostaddr=None))
        await leads.wait("DNS gone: connected by name")
        unreachable = Expectation(world, *_UNREACHABLE, text="resol")
        _forget_name(hosts)
        world.proxy.reset()
        await unreachable.wait("DNS gone")
        await world.hold(0.0, 5.0)
        _write_name(hosts)
        await Expectation(world, events.LEADS).wait("DNS gone: back before the repair")
        yield
    finally:
        world.change_rules()
        _forget_name(hosts)


def _write_name(hosts: Path) -> None:
    hosts.write_text(hosts.read_text(encoding="utf-8") + _HOSTS_LINE, encoding="utf-8")


def _forget_name(hosts: Path) -> None:
    text = hosts.read_text(encoding="utf-8")
    hosts.write_text(text.replace(_HOSTS_LINE, ""), encoding="utf-8")  # in place, because it is mounted


FAULTS: Final[Sequence[Fault]] = (
    *(_restart("fast"), _restart("immediate"), backend_crash, frozen_postmaster, frozen_backend),
    *(_full_slots("slots full", FILLER), _full_slots("slots full of leaks", PROBE)),
    *(promotion, other_major, locked_roles, revoked_right, role_setting, lost_name),
)
