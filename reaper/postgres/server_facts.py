"""Settings, roles and counters of a server, read for advice."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import psycopg

from reaper.insight.advice.server_facts import (
    PreparedTransaction,
    ReplicationSlot,
    RoleFacts,
    RoleSetting,
    ServerFacts,
)
from reaper.policy.time import Timestamp
from reaper.postgres.connection import Connection
from reaper.postgres.errors import ServerError, sentence
from reaper.postgres.preflight import Probe
from reaper.postgres.sql import statement

_SERVER_FACTS: Final = statement("server_facts")
_SHARED_SOURCES: Final = frozenset(
    {"default", "configuration file", "command line", "environment variable", "global"}
)
"""A value from one of these applies to other connections too, unless their role has another one."""
_LEASED: Final = "idle_session_timeout"
"""Our own connection changes it, so that its source is never a shared one; the reset value still applies."""


class FactRow(NamedTuple):
    """One row of server_facts.sql."""

    kind: str
    name: str | None
    second: str | None
    third: str | None
    number: int | None
    other: int | None
    at: Timestamp | None


async def read_server_facts(connection: Connection, probe: Probe) -> ServerFacts:
    """Read all facts with one statement; ServerError if it fails. Raises Lost."""
    try:
        rows = [FactRow._make(row) for row in await connection.rows(_SERVER_FACTS)]
    except psycopg.Error as error:
        message = f"could not read the server's settings: {sentence(error)}"
        raise ServerError(message) from None
    return _facts(rows, probe)


def _facts(rows: Sequence[FactRow], probe: Probe) -> ServerFacts:
    kinds = defaultdict[str, list[FactRow]](list)
    for row in rows:
        kinds[row.kind].append(row)
    (opened,) = kinds["opened"]
    given = tuple(map(_given, kinds["given"]))
    ours = {each.name for each in given if each.role in {None, probe.role}}
    return ServerFacts(
        at=opened.at or Timestamp(0),
        major=probe.major,
        settings={
            row.name: row.second or ""
            for row in kinds["setting"]
            if row.name and (row.third in _SHARED_SOURCES or (row.name == _LEASED and _LEASED not in ours))
        },
        roles={
            row.name: RoleFacts(name=row.name, limit=row.number or 0, superuser=bool(row.other))
            for row in kinds["role"]
            if row.name
        },
        given=given,
        prepared=tuple(map(_prepared, kinds["prepared"])),
        idle_slots=tuple(map(_slot, kinds["slot"])),
        opened=opened.number,
        standby=probe.standby,
        uses_reserved=probe.uses_reserved or probe.superuser,
    )


def _prepared(row: FactRow) -> PreparedTransaction:
    return PreparedTransaction(
        gid=row.name or "",
        database=row.second or "",
        owner=row.third or "",
        at=row.at or Timestamp(0),
        xid_age=row.number,
    )


def _slot(row: FactRow) -> ReplicationSlot:
    return ReplicationSlot(name=row.name or "", kind=row.second or "", xid_age=row.number, retained=row.other)


def _given(row: FactRow) -> RoleSetting:
    name, _, value = (row.third or "").partition("=")
    return RoleSetting(role=row.name, database=row.second, name=name, value=value)
