"""Statements that are under way together, and have nothing to do with each other.

A Sync follows each, so that each is a transaction of its own: it sees what is true when its turn comes, not
what the one before it saw, and fails alone. To wait for the answer to one before the next is sent would cost
a change of process each, on both sides.

What was sent cannot be called back: a flight is as long as whoever sends it can answer for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg import AsyncConnection, errors, generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Wait

Row = tuple[bytes | None, ...]

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
_NUMBERS: Final = count(1)
_BINARY: Final = Format.BINARY
_BYTES: Final = 17
"""The oid of bytea: values stay as they came over the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A statement under a name of its own, with parameters that are counted and not named."""

    name: bytes
    sql: bytes
    parameters: tuple[str, ...]
    """In the order in which their values are sent."""

    @classmethod
    def of(cls, sql: str) -> Self:
        """Number the parameters of a statement that names them."""
        names = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
        return cls(name=f"flight_{next(_NUMBERS)}".encode(), sql=numbered.encode(), parameters=names)

    def asked(self, **values: bytes | None) -> "Ask":
        """The statement with these values, by the names of its parameters."""
        return Ask(self, [values[name] for name in self.parameters])


class Ask(NamedTuple):
    """A statement, and what it is to be run with."""

    statement: Prepared
    values: Sequence[bytes | None]


async def prepare(connection: AsyncConnection[Any], statement: Prepared) -> None:
    """Let the server prepare it, once for the life of a connection."""
    async with connection.lock:
        connection.pgconn.send_prepare(statement.name, statement.sql)
        for result in await connection.wait(generators.fetch_many(connection.pgconn)):
            if failed := _failure(result):
                raise failed


async def fly(
    connection: AsyncConnection[Any], asks: Sequence[Ask]
) -> Sequence[Sequence[Row] | psycopg.Error]:
    """Send all of these, whose statements are prepared; the rows of each, in binary, or its error.

    Raises nothing of the driver's. When the connection breaks, its error stands for every answer that did not
    come: the server may have acted on any of them.
    """
    answers: list[Sequence[Row] | psycopg.Error] = []
    broken: psycopg.Error | None = None
    async with connection.lock:
        pgconn = connection.pgconn
        try:
            pgconn.enter_pipeline_mode()
            await connection.wait(_flight(pgconn, asks, answers))
        except psycopg.Error as error:
            broken = error
        finally:
            _land(pgconn)
    if broken:
        answers += [broken] * (len(asks) - len(answers))
    return answers


def _flight(pgconn: PGconn, asks: Sequence[Ask], answers: list[Sequence[Row] | psycopg.Error]) -> PQGen[None]:
    for statement, values in asks:
        pgconn.send_query_prepared(statement.name, values, [_BINARY] * len(values), _BINARY)
        pgconn.pipeline_sync()
    while pgconn.flush():
        # The server may wait for us to read before it reads on.
        yield Wait.RW
        pgconn.consume_input()
    for _ in asks:
        result = yield from _next(pgconn)
        answers.append(_failure(result) or _rows(result))
        yield from _next(pgconn)  # the Sync


def _next(pgconn: PGconn) -> PQGen[PGresult]:
    results = yield from generators.fetch_many(pgconn)
    if not results:
        message = "the answer did not come"
        raise psycopg.OperationalError(message)
    result: PGresult = results[0]
    return result


def _land(pgconn: PGconn) -> None:
    """Leave pipeline mode, or end a connection on which somebody else's answers would still come in."""
    try:
        pgconn.exit_pipeline_mode()
    except psycopg.Error:
        pgconn.finish()


def _failure(result: PGresult) -> psycopg.Error | None:
    if result.status in {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK}:
        return None
    return errors.error_from_result(result)


def _rows(result: PGresult) -> Sequence[Row]:
    # The driver's own loop, which takes a third of the time that asking for each value would.
    loop = Transformer()
    loop.set_loader_types([_BYTES] * result.nfields, _BINARY)
    loop.set_pgresult(result, set_loaders=False)
    return loop.load_rows(0, result.ntuples, tuple)
