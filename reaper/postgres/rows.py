"""The rows of observe.sql as sessions; loaders that no byte chosen by a client can break."""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader

from reaper.policy.session import Identity, Session, SessionId
from reaper.policy.time import Timestamp
from reaper.postgres.query_text import QueryText

_INT8: Final = struct.Struct("!q")
_EPOCH_OF_2000: Final = 946_684_800_000_000
_CACHED_NAMES: Final = 2_048
"""Bounded, because a client may choose another application name for each session."""
_TEXT_TYPES: Final = ("text", "name", "varchar", "bpchar")


class TolerantText(Loader):
    """Text in any encoding: an invalid byte is shown by its number."""

    # psycopg's own loader raises: one session with a bad application name would hide all the others.
    format = Format.BINARY

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._encoding = tolerant(self.connection.info.encoding if self.connection else "ascii")

    def load(self, data: Buffer) -> str:
        """Decode as the database is encoded."""
        return as_text(bytes(data), self._encoding)


class ExactInstant(Loader):
    """timestamptz as whole microseconds since 1970."""

    # A datetime would fail for infinity, and the guard compares moments for equality.
    format = Format.BINARY

    def load(self, data: Buffer) -> Timestamp:
        """Shift the server's epoch of the year 2000 to 1970."""
        (microseconds,) = _INT8.unpack(data)
        return Timestamp(microseconds + _EPOCH_OF_2000)


def tolerant(encoding: str) -> str:
    """The encoding by which to decode text of a database with this one."""
    # SQL_ASCII is the absence of an encoding, and most text in such a database is UTF-8.
    return "utf-8" if encoding == "ascii" else encoding


@lru_cache(maxsize=_CACHED_NAMES)
def as_text(data: bytes, encoding: str) -> str:
    """Text from the wire; many sessions share a name, which is decoded and stored once."""
    return data.decode(encoding, "backslashreplace")


def register_loaders(connection: AsyncConnection[tuple[Any, ...]]) -> None:
    """Register the tolerant loaders for one connection."""
    for name in _TEXT_TYPES:
        connection.adapters.register_loader(name, TolerantText)
    connection.adapters.register_loader("timestamptz", ExactInstant)


def load_raw(cursor: AsyncCursor[tuple[Any, ...]]) -> None:
    """Let this cursor return text as bytes and timestamps as microseconds since 2000."""
    # psycopg has these loaders in C. Those above are Python: for 5,000 sessions their calls alone would cost
    # more than all the rest of a cycle.
    for name in _TEXT_TYPES:
        cursor.adapters.register_loader(name, ByteaBinaryLoader)
    cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)


class ObservedRow(NamedTuple):
    """One row of observe.sql, as `load_raw` leaves it."""

    pid: int
    backend_start: int | None
    database: bytes | None
    role: bytes | None
    application: bytes | None
    client: bytes | None
    kind: bytes | None
    role_oid: int | None
    superuser: bool | None
    client_port: int | None
    state: bytes | None
    state_change: int | None
    query_start: int | None
    xact_start: int | None
    wait_event: bytes | None
    xid_age: int | None
    listens: bool | None
    starts_backup: bool | None
    query: bytes | None
    at: int | None
    """This and the following columns describe the snapshot; only our own session's row has them."""
    clients: int | None
    """The count of all client sessions and walsenders."""
    unreadable: int | None


class SessionReader:
    """Turns the rows of one snapshot after the other into sessions."""

    def __init__(self, encoding: str, query_text: QueryText) -> None:
        self._encoding = encoding
        self._query_text = query_text
        self._last = dict[int, tuple[tuple[Any, ...], Session | None]]()
        """By pid, the row of the last snapshot and its session."""

    def sessions(self, rows: Iterable[tuple[Any, ...]]) -> tuple[Session, ...]:
        """The sessions of these rows, without those that the server hides."""
        # Most sessions of a large server have not changed since the last snapshot: to compare two rows costs
        # a tenth of a new session. The row holds backend_start, so a new session of an old pid is no match.
        last = self._last
        self._last = {
            row[0]: known if (known := last.get(row[0])) and known[0] == row else (row, self._session(row))
            for row in rows
        }
        return tuple([session for _, session in self._last.values() if session])

    def _session(self, row: tuple[Any, ...]) -> Session | None:
        return session_of(ObservedRow._make(row), self._query_text, self._encoding)


def session_of(row: ObservedRow, query_text: QueryText, encoding: str) -> Session | None:
    """The session of a row; None if the server hides its kind or its start."""
    if row.kind is None or row.backend_start is None:
        return None
    names = (row.database, row.role, row.application, row.client)
    return Session(
        id=SessionId(row.pid, Timestamp(row.backend_start + _EPOCH_OF_2000)),
        identity=Identity(*[None if name is None else as_text(name, encoding) for name in names]),
        kind=as_text(row.kind, encoding),
        role_oid=row.role_oid,
        superuser=bool(row.superuser),
        client_port=row.client_port,
        state=None if row.state is None else as_text(row.state, encoding),
        state_change=instant_of(row.state_change),
        query_start=instant_of(row.query_start),
        xact_start=instant_of(row.xact_start),
        wait_event=None if row.wait_event is None else as_text(row.wait_event, encoding),
        xid_age=row.xid_age,
        last_query_listens=bool(row.listens),
        last_query_starts_backup=bool(row.starts_backup),
        # Not cached: query texts are long, and most of them differ.
        query=None if row.query is None else query_text.shown(row.query.decode(encoding, "backslashreplace")),
    )


def instant_of(microseconds: int | None) -> Timestamp | None:
    """The moment of a raw timestamp."""
    return None if microseconds is None else Timestamp(microseconds + _EPOCH_OF_2000)
