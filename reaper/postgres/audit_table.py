"""The table on another server that takes a copy of the record.

Rows can be added to it, and that is all that we want to be able to do there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from reaper.postgres.connection import Connection
from reaper.postgres.errors import Refused, ServerError, sentence
from reaper.postgres.sql import statement
from reaper.postgres.tls import VERIFY

NAME: Final = "reaper.record"

_INSERT: Final = statement("insert_record")
_COLUMNS: Final = (
    *(
        "digest",
        "source",
        "line",
        "time",
        "event",
        "run",
        "seq",
        "host",
        "server",
        "policy",
        "mode",
        "action",
    ),
    *("intent", "pid", "role", "database", "application", "client", "state", "reason", "outcome", "detail"),
)
_MAY_CHANGE: Final = "SELECT pg_catalog.has_table_privilege('reaper.record', 'UPDATE, DELETE, TRUNCATE')"
_WHERE: Final = ("service", "host", "hostaddr", "port", "dbname")
_MEND: Final = "deploy/sql/record_table.sql makes it, and the role that may add to it"
_REFUSALS: Final = {
    "3F000": _MEND,
    "42P01": _MEND,
    "42703": _MEND,
    "42501": _MEND,
    "25006": "name the primary",
}
"""What somebody has to mend there, by the SQLSTATE that tells of it."""

_LESS: Final = "REVOKE UPDATE, DELETE, TRUNCATE ON reaper.record, and let another role own it"
_UNTAKEN: Final = (
    "nothing arrives until it takes this line; what was changed there since deploy/sql/record_table.sql?"
)
_ABOUT_THE_LINE: Final = ("22", "23", "44", "P0")
"""Classes of SQLSTATE in which the table says no to what it is given, as often as it is asked."""

Row = Mapping[str, object]


class Doubt(NamedTuple):
    """Something that should not be so, and what to do about it."""

    why: str
    mend: str


class RecordTable:
    """One connection to the table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """Connect, and find out whether rows may be added; Refused says what has to be mended."""
        table = cls(await Connection.open(dsn, writes=True))
        try:
            await table.add(())
        except BaseException:
            await table.close()
            raise
        return table

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return self._connection.where

    async def add(self, rows: Sequence[Row]) -> None:
        """Add these with one statement, all or none; what is there already stays as it is."""
        encoding = "utf-8" if self._connection.takes_unicode else "ascii"
        values = {name: _array([row.get(name) for row in rows], encoding) for name in _COLUMNS}
        try:
            await self._connection.rows(_INSERT, values)
        except psycopg.Error as error:
            raise _explained(error) from None

    async def doubts(self) -> Sequence[Doubt]:
        """What makes the copy less of an evidence."""
        try:
            ((may_change,),) = await self._connection.rows(_MAY_CHANGE)
        except psycopg.Error as error:
            raise _explained(error) from None
        exposed = self._connection.way.exposed
        return (
            *([Doubt("this role may change what stands there", _LESS)] if may_change else ()),
            *([Doubt(exposed, VERIFY)] if exposed else ()),
        )

    def cut(self) -> None:
        """End what is under way, at once."""
        self._connection.cut()

    async def close(self) -> None:
        """Give the slot back."""
        await self._connection.close()


def target_of(dsn: str) -> str:
    """What tells one table from another, without a secret; ValueError when this is no connection string."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        message = "it is neither `key=value ...` nor a postgresql:// URI"
        raise ValueError(message) from None
    return " ".join(f"{key}={given[key]}" for key in _WHERE if key in given)


def _explained(error: psycopg.Error) -> ServerError:
    said = f"{NAME}: {sentence(error)}"
    state = error.sqlstate or ""
    mend = _UNTAKEN if state.startswith(_ABOUT_THE_LINE) else _REFUSALS.get(state)
    return Refused(f"{said}; {mend}") if mend else ServerError(said)


def _array(values: Iterable[object], encoding: str) -> str:
    """An array as its text: ten times as fast as by the driver's way, which would keep cycles waiting."""
    return "{" + ",".join("NULL" if value is None else _element(value, encoding) for value in values) + "}"


def _element(value: object, encoding: str) -> str:
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    # What the other database cannot store is shown by its number; in the line itself everything is ASCII.
    stored = text.encode(encoding, "backslashreplace").decode(encoding)
    return '"' + stored.replace("\\", "\\\\").replace('"', '\\"') + '"'
