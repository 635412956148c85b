"""The rows of observe.sql, and the sessions that they tell of."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from reaper.policy.session import Identity, Session, SessionId
from reaper.policy.time import Instant
from reaper.postgres.decoding import as_flag, as_instant, as_number, as_text
from reaper.postgres.flight import Row
from reaper.postgres.query_text import QueryText


class Columns(NamedTuple):
    """What each column holds, as it came over the wire."""

    pid: bytes
    backend_start: bytes | None
    database: bytes | None
    role: bytes | None
    application: bytes | None
    client: bytes | None
    kind: bytes | None
    role_oid: bytes | None
    superuser: bytes | None
    client_port: bytes | None
    state: bytes | None
    state_change: bytes | None
    query_start: bytes | None
    xact_start: bytes | None
    wait_event: bytes | None
    xid_age: bytes | None
    listens: bytes | None
    starts_backup: bytes | None
    query: bytes | None
    at: bytes | None
    """This and what follows is about the look, and only our own session's row tells it."""
    clients: bytes | None
    """Walsenders too, who all have a row of their own."""
    unreadable: bytes | None


_PID: Final = Columns._fields.index("pid")
_AT: Final = Columns._fields.index("at")

_MOST_WORDS: Final = 2_048
"""So many names are remembered, none of them long: a client may call itself by another one each time."""


class _Told(NamedTuple):
    """A row, and what was made of it."""

    row: Row
    session: Session | None


class Reader:
    """Makes sessions of one look's rows after the other's; most have not changed in between."""

    def __init__(self, decoder: "Decoder") -> None:
        self._decode = decoder.session
        self._told: dict[bytes | None, _Told] = {}

    def sessions(self, rows: Sequence[Row]) -> tuple[Session, ...]:
        """The sessions of these rows, without those that the server hides."""
        before, decode = self._told, self._decode
        told = [
            was
            if (was := before.get(row[_PID])) and was.row == row
            else _Told(row, decode(Columns._make(row)))
            for row in rows
        ]
        self._told = {each.row[_PID]: each for each in told}
        return tuple(each.session for each in told if each.session)


def of_the_look(rows: Sequence[Row]) -> Columns:
    """The row that tells of the look itself: our own session is always among them."""
    return Columns._make(next(row for row in rows if row[_AT]))


class Decoder:
    """Makes sessions of rows."""

    def __init__(self, *, encoding: str, query_text: QueryText) -> None:
        self._encoding = encoding
        self._query_text = query_text

    def session(self, row: Columns) -> Session | None:
        """The session; nothing when the server hides what it is or since when."""
        if row.kind is None or row.backend_start is None:
            return None
        return Session(
            id=SessionId(as_number(row.pid), as_instant(row.backend_start)),
            identity=Identity(*map(self._text, (row.database, row.role, row.application, row.client))),
            kind=_word(row.kind, self._encoding),
            role_oid=None if row.role_oid is None else int.from_bytes(row.role_oid, "big"),
            superuser=as_flag(row.superuser),
            client_port=_number(row.client_port),
            state=self._text(row.state),
            state_change=_instant(row.state_change),
            query_start=_instant(row.query_start),
            xact_start=_instant(row.xact_start),
            wait_event=self._text(row.wait_event),
            xid_age=_number(row.xid_age),
            last_query_listens=as_flag(row.listens),
            last_query_starts_backup=as_flag(row.starts_backup),
            query=None if row.query is None else self._query_text.shown(as_text(row.query, self._encoding)),
        )

    def _text(self, data: bytes | None) -> str | None:
        return None if data is None else _word(data, self._encoding)


@lru_cache(maxsize=_MOST_WORDS)
def _word(data: bytes, encoding: str) -> str:
    """A name, of which many sessions have the same: it is decoded once, and in memory once."""
    return as_text(data, encoding)


def _number(data: bytes | None) -> int | None:
    return None if data is None else as_number(data)


def _instant(data: bytes | None) -> Instant | None:
    return None if data is None else as_instant(data)
