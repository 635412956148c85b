"""Faults of the reaper's role and login: rights, settings, password, host name and certificate."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import psycopg
import trustme
from psycopg.conninfo import make_conninfo

from reaper.telemetry import events
from tests.lab.world.isolation import Isolation
from tests.lab.world.server import REAPER
from tests.postgres.tls import Front, issued, root_of

from .rounds import Fault, fault
from .world import Expectation, FaultWorld, replace_file

_HELD: Final = (0.5, 8.0)
_BRIEFLY: Final = (0.0, 5.0)
_UNREACHABLE: Final = (events.SERVER_UNREACHABLE, events.SERVER_DENIED)
_HOST: Final = "db.reaper.test"
_HOSTS_LINE: Final = f"127.0.0.1 {_HOST}\n"
_SINCE_15: Final = {"idle_session_timeout", "stats_fetch_consistency"}
_RIGHTS: Final = {
    "pg_signal_backend": (f"REVOKE pg_signal_backend FROM {REAPER}", f"GRANT pg_signal_backend TO {REAPER}"),
    "pg_read_all_stats": (f"REVOKE pg_read_all_stats FROM {REAPER}", f"GRANT pg_read_all_stats TO {REAPER}"),
    "LOGIN": (f"ALTER ROLE {REAPER} NOLOGIN", f"ALTER ROLE {REAPER} LOGIN"),
    "its connections": (
        f"ALTER ROLE {REAPER} CONNECTION LIMIT 0",
        f"ALTER ROLE {REAPER} CONNECTION LIMIT -1",
    ),
    "CONNECT": (
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO app, other",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
    ),
}
_SETTINGS: Final = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "200ms",
    "idle_in_transaction_session_timeout": "1ms",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "search_path": "nowhere",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "stats_fetch_consistency": "snapshot",
    "enable_material": "off",
    "enable_seqscan": "off",
    "row_security": "off",
    "standard_conforming_strings": "off",
    "role": "other",
}


@fault("pg_authid locked", "role")
async def locked_roles(world: FaultWorld) -> AsyncIterator[None]:
    """A superuser locks the catalog that every observation and every login reads."""
    async with AsyncExitStack() as stack:
        with suppress(psycopg.OperationalError):
            admin = await stack.enter_async_context(world.admin())
            await admin.execute("BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        if world.dice.random() < 0.3:
            world.proxy.reset()
        await asyncio.sleep(world.dice.uniform(*_HELD))
        yield


@asynccontextmanager
async def _changed(world: FaultWorld, note: str, change: str, back: str) -> AsyncIterator[None]:
    world.notes[note] += 1
    try:
        await world.execute(change)
        if world.dice.random() < 0.5:
            world.proxy.reset()  # the reaper has to log in under the change
        await asyncio.sleep(world.dice.uniform(*_HELD))
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
    name = world.dice.choice(list(_SETTINGS))
    if name in _SINCE_15 and world.server.major < 15:
        name = "statement_timeout"
    change = f"ALTER ROLE {REAPER} SET {name} = '{_SETTINGS[name]}'"
    back = f"ALTER ROLE {REAPER} RESET {name}"
    async with _changed(world, f"ALTER ROLE ... SET: {name} = {_SETTINGS[name]}", change, back):
        yield


async def _connect_by(world: FaultWorld, fault: str, dsn: str) -> None:
    """Give the reapers another DSN, and wait until one leads over it."""
    leads = Expectation(world, events.LEADS)
    world.change_rules(dsn=dsn)
    await leads.wait(f"{fault}: connected in that way")


def _no_hosts(place: Isolation) -> str:
    return "" if place.hosts else "root, for a file of host names of its own"


@fault("DNS gone", "policies", "link", missing=_no_hosts)
async def lost_name(world: FaultWorld) -> AsyncIterator[None]:
    """The server's host name cannot be resolved any more."""
    hosts = world.place.hosts
    assert hosts
    try:
        _write_name(hosts)
        await _connect_by(world, "DNS gone", make_conninfo(world.dsn, host=_HOST, hostaddr=None))
        unreachable = Expectation(world, *_UNREACHABLE, text="resol")
        _forget_name(hosts)
        world.proxy.reset()
        await unreachable.wait("DNS gone")
        await asyncio.sleep(world.dice.uniform(*_BRIEFLY))
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


@fault("certificate expired", "policies")
async def expired_certificate(world: FaultWorld) -> AsyncIterator[None]:
    """The server's certificate expires, and is renewed later."""
    authority = trustme.CA()
    front = Front(world.proxy.dsn(), issued(authority))
    await asyncio.to_thread(front.__enter__)
    try:
        root = root_of(authority, world.folder)
        await _connect_by(world, "certificate expired", front.guarded(world.dsn, root))
        unreachable = Expectation(world, *_UNREACHABLE, text="certificate")
        front.present(issued(authority, valid=(-2, -1)))
        world.proxy.reset()
        await unreachable.wait("certificate expired")
        await asyncio.sleep(world.dice.uniform(*_BRIEFLY))
        back = Expectation(world, events.LEADS)
        front.present(issued(authority))
        await back.wait("certificate expired: back before the repair")
        yield
    finally:
        world.change_rules()
        world.proxy.reset()  # otherwise the connection through the front would stay
        await asyncio.to_thread(front.__exit__)


@fault("password rotated", "policies", "role", "server", "slots")
async def rotated_password(world: FaultWorld) -> AsyncIterator[None]:
    """The role's password is changed, and the reaper's passfile only later."""
    passfile, access = world.folder / "passfile", world.server.data / "pg_hba.conf"
    usual = access.read_text(encoding="utf-8")
    try:
        password = await _new_password(world)
        access.write_text(f"host all {REAPER} all scram-sha-256\n{usual}", encoding="utf-8")
        await world.execute("SELECT pg_reload_conf()")
        _write_password(passfile, password)
        await _connect_by(world, "password rotated", make_conninfo(world.dsn, passfile=str(passfile)))
        unreachable = Expectation(world, *_UNREACHABLE, text="password")
        password = await _new_password(world)
        world.proxy.reset()
        await unreachable.wait("password rotated")
        await asyncio.sleep(world.dice.uniform(*_BRIEFLY))
        back = Expectation(world, events.LEADS)
        _write_password(passfile, password)
        await back.wait("password rotated: back before the repair")
        yield
    finally:
        world.change_rules()
        access.write_text(usual, encoding="utf-8")
        await world.execute("SELECT pg_reload_conf()", f"ALTER ROLE {REAPER} PASSWORD NULL")


async def _new_password(world: FaultWorld) -> str:
    password = f"rotated-{world.dice.getrandbits(64):x}"
    change = f"ALTER ROLE {REAPER} PASSWORD '{password}'"
    await world.execute("SET password_encryption = 'scram-sha-256'", change)
    return password


def _write_password(passfile: Path, password: str) -> None:
    replace_file(passfile, f"*:*:*:{REAPER}:{password}\n", mode=0o600)


FAULTS: Final[Sequence[Fault]] = (
    locked_roles,
    revoked_right,
    role_setting,
    lost_name,
    expired_certificate,
    rotated_password,
)
