"""The rows of observe.sql as sessions; loaders that no byte chosen by a client can break."""

import struct
from functools import lru_cache
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from reaper.policy.session import Identity, Session, SessionId
from reaper.policy.time import Instant
from reaper.postgres.query_text import QueryText

_INT8: Final = struct.Struct("!q")
_EPOCH_OF_2000: Final = 946_684_800_000_000
_CACHED_WORDS: Final = 2_048
"""Bounded, because a client may choose another application name for each session."""


class TolerantText(Loader):
    """Text in any encoding: an invalid byte is shown by its number."""

    # psycopg's own loader raises: one session with a bad application name would hide all the others.
    format = Format.BINARY

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        encoding = self.connection.info.encoding if self.connection else "ascii"
        # SQL_ASCII is the absence of an encoding, and most text in such a database is UTF-8.
        self._encoding = "utf-8" if encoding == "ascii" else encoding

    def load(self, data: Buffer) -> str:
        """Decode as the database is encoded."""
        return as_text(bytes(data), self._encoding)


@lru_cache(maxsize=_CACHED_WORDS)
def as_text(data: bytes, encoding: str) -> str:
    """Text from the wire; many sessions share a name, which is decoded and stored once."""
    return data.decode(encoding, "backslashreplace")


class ExactInstant(Loader):
    """timestamptz as whole microseconds since 1970."""

    # A datetime would fail for infinity, and the guard compares moments for equality.
    format = Format.BINARY

    def load(self, data: Buffer) -> Instant:
        """Shift the server's epoch of the year 2000 to 1970."""
        (microseconds,) = _INT8.unpack(data)
        return Instant(microseconds + _EPOCH_OF_2000)


def register_loaders(connection: AsyncConnection[tuple[Any, ...]]) -> None:
    """Register the loaders of this module for one connection."""
    for name in ("text", "name", "varchar", "bpchar"):
        connection.adapters.register_loader(name, TolerantText)
    connection.adapters.register_loader("timestamptz", ExactInstant)


class ObservedRow(NamedTuple):
    """One row of observe.sql."""

    pid: int
    backend_start: Instant | None
    database: str | None
    role: str | None
    application: str | None
    client: str | None
    kind: str | None
    role_oid: int | None
    superuser: bool | None
    client_port: int | None
    state: str | None
    state_change: Instant | None
    query_start: Instant | None
    xact_start: Instant | None
    wait_event: str | None
    xid_age: int | None
    listens: bool | None
    starts_backup: bool | None
    query: str | None
    at: Instant | None
    """This and the following columns describe the snapshot; only our own session's row has them."""
    clients: int | None
    """The count of all client sessions and walsenders."""
    unreadable: int | None


def session_of(row: ObservedRow, query_text: QueryText) -> Session | None:
    """The session of a row; None if the server hides its kind or its start."""
    if row.kind is None or row.backend_start is None:
        return None
    return Session(
        id=SessionId(row.pid, row.backend_start),
        identity=Identity(row.database, row.role, row.application, row.client),
        kind=row.kind,
        role_oid=row.role_oid,
        superuser=bool(row.superuser),
        client_port=row.client_port,
        state=row.state,
        state_change=row.state_change,
        query_start=row.query_start,
        xact_start=row.xact_start,
        wait_event=row.wait_event,
        xid_age=row.xid_age,
        last_query_listens=bool(row.listens),
        last_query_starts_backup=bool(row.starts_backup),
        query=query_text.shown(row.query),
    )
