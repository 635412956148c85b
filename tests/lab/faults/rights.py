"""What the reaper may do is taken from it, and given back."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, NamedTuple

import psycopg

from .campaign import NewFault
from .contract import Excuse
from .world import ROLE, World

_HELD: Final = (0.5, 8.0)


class LockedRoles:
    """A superuser locks the catalog that every look, and every login, reads."""

    name = "pg_authid locked"
    touches = frozenset({"role"})
    excuse = Excuse.NOTHING

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def inflict(self, world: World) -> None:
        with suppress(psycopg.OperationalError):
            admin = await self._stack.enter_async_context(world.admin())
            await admin.execute("BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        if world.dice.random() < 0.3:
            world.line.reset()
        await asyncio.sleep(world.dice.uniform(*_HELD))

    async def mend(self, _: World) -> None:
        await self._stack.aclose()


class _Change(NamedTuple):
    name: str
    away: str
    back: str


_RIGHTS: Final = (
    _Change(
        "pg_signal_backend", f"REVOKE pg_signal_backend FROM {ROLE}", f"GRANT pg_signal_backend TO {ROLE}"
    ),
    _Change(
        "pg_read_all_stats", f"REVOKE pg_read_all_stats FROM {ROLE}", f"GRANT pg_read_all_stats TO {ROLE}"
    ),
    _Change("LOGIN", f"ALTER ROLE {ROLE} NOLOGIN", f"ALTER ROLE {ROLE} LOGIN"),
    _Change(
        "its connections", f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"
    ),
    _Change(
        "CONNECT",
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO app, other",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
    ),
)
_SETTINGS: Final = (
    ("statement_timeout", "1ms"),
    ("lock_timeout", "1ms"),
    ("idle_session_timeout", "200ms"),
    ("idle_in_transaction_session_timeout", "1ms"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("search_path", "nowhere"),
    ("client_encoding", "LATIN1"),
    ("bytea_output", "escape"),
    ("datestyle", "German"),
    ("intervalstyle", "sql_standard"),
    ("timezone", "Asia/Kathmandu"),
    ("stats_fetch_consistency", "snapshot"),
    ("enable_material", "off"),
    ("enable_seqscan", "off"),
    ("row_security", "off"),
    ("standard_conforming_strings", "off"),
    ("role", "other"),
)


class _Changed:
    touches = frozenset({"role"})
    excuse = Excuse.NOTHING
    name: str

    def __init__(self) -> None:
        self._change = _Change("", "", "")

    async def inflict(self, world: World) -> None:
        self._change = self._chosen(world)
        world.count(f"{self.name}: {self._change.name}")
        await world.execute(self._change.away)
        if world.dice.random() < 0.5:
            world.line.reset()  # it must come in again under what holds now
        await asyncio.sleep(world.dice.uniform(*_HELD))

    async def mend(self, world: World) -> None:
        await world.execute(self._change.back or "SELECT 1")

    def _chosen(self, world: World) -> _Change:
        raise NotImplementedError


class RevokedRight(_Changed):
    """A right is revoked, and granted again."""

    name = "right revoked"

    def _chosen(self, world: World) -> _Change:
        return world.dice.choice(_RIGHTS)


class RoleSetting(_Changed):
    """Its role is given a setting that does not suit it."""

    name = "ALTER ROLE ... SET"

    def _chosen(self, world: World) -> _Change:
        setting, value = world.dice.choice(_SETTINGS)
        if setting in {"idle_session_timeout", "stats_fetch_consistency"} and world.server.major < 15:
            setting, value = _SETTINGS[0]
        away = f"ALTER ROLE {ROLE} SET {setting} = '{value}'"
        return _Change(f"{setting} = {value}", away, f"ALTER ROLE {ROLE} RESET {setting}")


FAULTS: Final[Sequence[NewFault]] = (LockedRoles, RevokedRight, RoleSetting)
