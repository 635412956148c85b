"""Terminations in the server's own log and counters."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.lab.clients.session import TERMINATED, SessionKey
from tests.lab.world.server import LabServer

COUNTS_SINCE: Final = 14
"""The first major that counts terminated sessions."""
_MILLISECOND: Final = 1_000
_TIME, _SESSION, _SEVERITY, _STATE, _MESSAGE, _QUERY, _APPLICATION, _BACKEND = 0, 5, 11, 12, 13, 19, 22, 23
_CLIENT: Final = "client backend"
_SHUTDOWN: Final = ("received fast shutdown request", "received immediate shutdown request")
_READY: Final = "database system is ready to accept connections"
_KILLED: Final = "SELECT sessions_killed FROM pg_stat_database WHERE datname = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTermination:
    """A session that the server ended at a command of an administrator, and not because of a shutdown."""

    key: SessionKey
    at: int
    """When, in microseconds: the end of the millisecond in the log."""
    application: str
    executing: bool = False
    """Whether it executed a statement."""

    @property
    def seconds(self) -> float:
        """When, in seconds since 1970."""
        return self.at / 1_000_000


def terminations(*logs: Path) -> Iterator[LoggedTermination]:
    """All terminations in these CSV logs, each log in its order."""
    for path in logs:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            yield from _terminations(row for row in csv.reader(lines) if len(row) > _BACKEND)


def terminated(server: LabServer, prefix: str = "") -> list[LoggedTermination]:
    """The terminations in this server's log so far, of applications with this prefix."""
    server.flush_log()
    return [each for each in terminations(server.csv_log) if each.application.startswith(prefix)]


def sessions_killed(server: LabServer, database: str) -> int:
    """The server's own counter of terminated sessions."""
    return sum(int(count) for (count,) in server.query(_KILLED, database))


def _terminations(rows: Iterable[list[str]]) -> Iterator[LoggedTermination]:
    shutting_down = False
    for row in rows:
        if row[_MESSAGE] in _SHUTDOWN:
            shutting_down = True
        elif row[_MESSAGE] == _READY:
            shutting_down = False
        elif (
            row[_STATE] == TERMINATED
            and row[_SEVERITY] == "FATAL"
            and row[_BACKEND] == _CLIENT
            and not shutting_down
        ):
            began, _, pid = row[_SESSION].partition(".")
            yield LoggedTermination(
                key=SessionKey(int(began, 16), int(pid, 16)),
                at=_microseconds(row[_TIME]),
                application=row[_APPLICATION],
                executing=bool(row[_QUERY]),
            )


def _microseconds(text: str) -> int:
    moment = datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000) * _MILLISECOND + _MILLISECOND - 1
