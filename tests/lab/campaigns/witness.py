"""What the server itself says of the sessions that were terminated: its log, and its counter."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg

LOG_LINE_PREFIX: Final = "%m [%p] %a "
_LINE: Final = re.compile(
    rb"(?P<at>\S+ \S+) UTC \[(?P<pid>\d+)\] (?P<application>\S+) (?P<kind>FATAL|STATEMENT):  (?P<text>.*)"
)
_TERMINATED: Final = b"terminating connection due to administrator command"
_KILLED: Final = "SELECT sessions_killed FROM pg_stat_database WHERE datname = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """One session that an administrator's command ended, as the server logged it."""

    at: float
    pid: int
    application: str
    executing: bool = False
    """Whether it was at a statement, which the server then logs beneath."""


def deaths(log: Path) -> Iterator[Death]:
    """Every one of them, in the order in which they happened."""
    last: Death | None = None
    with log.open("rb") as lines:
        for line in lines:
            told = _LINE.match(line)
            if told and last and told["kind"] == b"STATEMENT" and int(told["pid"]) == last.pid:
                last = replace(last, executing=True)  # logged with the line before, in one write
            elif told and told["kind"] == b"FATAL" and told["text"] == _TERMINATED:
                if last:
                    yield last
                last = Death(
                    at=_moment(told["at"]), pid=int(told["pid"]), application=told["application"].decode()
                )
    if last:
        yield last


def sessions_killed(dsn: str, database: str) -> int:
    """The server's own count, which PostgreSQL keeps from 14 on."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(_KILLED, (database,)).fetchone()
    return int(row[0]) if row else 0


def _moment(text: bytes) -> float:
    return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC).timestamp()
