"""The table on another server that holds a copy of the audit log; our role there should only add rows."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from reaper.policy.time import parse_time
from reaper.postgres.connection import Connection
from reaper.postgres.errors import Refused, ServerError, sentence
from reaper.postgres.sql import statement
from reaper.postgres.tls import VERIFY

NAME: Final = "reaper.record"

_INSERT: Final = statement("insert_record")
_COLUMNS: Final[Mapping[str, str]] = dict(re.findall(r"%\((\w+)\)s::(\w+)\[\]", _INSERT))
"""The type of each column, from the statement that fills them."""
TOO_LARGE: Final = {"bigint": 2**63, "integer": 2**31}
"""The first number that a column of this type cannot hold."""
_LONGEST_TEXT: Final = 1_000
"""Characters, more than any name has; the whole text is in the line."""
_MAY_CHANGE: Final = "SELECT pg_catalog.has_table_privilege('reaper.record', 'UPDATE, DELETE, TRUNCATE')"
_TARGET_KEYS: Final = ("service", "host", "hostaddr", "port", "dbname")
_CREATE: Final = "deploy/sql/record_table.sql makes it, and the role that may add to it"
_FIXES: Final = {
    "3F000": _CREATE,
    "42P01": _CREATE,
    "42703": _CREATE,
    "42501": _CREATE,
    "25006": "name the primary",
}
"""By SQLSTATE."""
_ADD_ONLY: Final = "REVOKE UPDATE, DELETE, TRUNCATE ON reaper.record, and let another role own it"
_LINE_REJECTED: Final = (
    "nothing arrives until it takes this line; what was changed there since deploy/sql/record_table.sql?"
)
_REJECTING: Final = ("22", "23", "44", "P0")
"""Classes of SQLSTATE by which the table rejects a row: repeating the statement cannot help."""

Row = Mapping[str, object]


class CopyWeakness(NamedTuple):
    """A reason why the copy proves less than it could."""

    why: str
    fix: str


class RecordTable:
    """One connection to the table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """Connect, and check that rows may be added; Refused names the fix."""
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
        """Add these rows with one statement, all or none; rows that exist already stay unchanged."""
        encoding = "utf-8" if self._connection.takes_unicode else "ascii"
        values = {name: _array([row.get(name) for row in rows], encoding) for name in _COLUMNS}
        try:
            await self._connection.rows(_INSERT, values)
        except psycopg.Error as error:
            raise _explained(error) from None

    async def doubts(self) -> Sequence[CopyWeakness]:
        """The reasons why the copy proves less than it could."""
        try:
            ((may_change,),) = await self._connection.rows(_MAY_CHANGE)
        except psycopg.Error as error:
            raise _explained(error) from None
        exposed = self._connection.path.exposed
        return (
            *([CopyWeakness("this role may change rows of the table", _ADD_ONLY)] if may_change else ()),
            *([CopyWeakness(exposed, VERIFY)] if exposed else ()),
        )

    def cut(self) -> None:
        """Break the connection at once."""
        self._connection.cut()

    async def close(self) -> None:
        """Close the connection and free its slot."""
        await self._connection.close()


def table_row(line: bytes, *, source: str) -> Row:
    """The row of a line of the audit log; a field that is missing or has another type is null."""
    # PostgreSQL stores no zero byte in a text.
    text = line.decode("ascii", "backslashreplace").replace("\0", "\\x00")
    fields: object = None
    with suppress(ValueError, RecursionError):
        fields = json.loads(text)
    known: Mapping[str, object] = fields if isinstance(fields, dict) else {}
    return {
        **{name: _column(known.get(name), kind) for name, kind in _COLUMNS.items()},
        "digest": hashlib.sha256(text.encode("ascii")).digest(),
        "source": source,
        "line": text,
    }


def _column(value: object, kind: str) -> object:
    if kind == "timestamptz":
        return parse_time(value)
    if kind == "text" and isinstance(value, str):
        return value[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    below = TOO_LARGE.get(kind, 0)
    if isinstance(value, int) and not isinstance(value, bool) and -below <= value < below:
        return value
    return None


def target_of(dsn: str) -> str:
    """The parts of a DSN that identify its table, without a secret; ValueError if it cannot be read."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq's message quotes the part that it cannot parse, which may be a password.
        message = "it is neither `key=value ...` nor a postgresql:// URI"
        raise ValueError(message) from None
    return " ".join(f"{key}={given[key]}" for key in _TARGET_KEYS if key in given)


def _explained(error: psycopg.Error) -> ServerError:
    message = f"{NAME}: {sentence(error)}"
    state = error.sqlstate or ""
    fix = _LINE_REJECTED if state.startswith(_REJECTING) else _FIXES.get(state)
    return Refused(f"{message}; {fix}") if fix else ServerError(message)


def _array(values: Iterable[object], encoding: str) -> str:
    """An array in its text form."""
    # Ten times as fast as psycopg's own arrays, during which no cycle of any server could run.
    return "{" + ",".join("NULL" if value is None else _element(value, encoding) for value in values) + "}"


def _element(value: object, encoding: str) -> str:
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    # A character that the other database cannot store is shown by its number; the line itself is ASCII.
    stored = text.encode(encoding, "backslashreplace").decode(encoding)
    return '"' + stored.replace("\\", "\\\\").replace('"', '\\"') + '"'
