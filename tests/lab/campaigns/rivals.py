"""The usual ways to do it, for comparison: what people paste into a terminal or into cron."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Final, LiteralString, Self

import psycopg

_ONE_LINER: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid)
      FROM pg_stat_activity
     WHERE state = 'idle'
       AND now() - state_change > %s * interval '1 second'
       AND application_name LIKE %s
"""
_READ: Final[LiteralString] = """
    SELECT pid
      FROM pg_stat_activity
     WHERE state = 'idle'
       AND now() - state_change > %s * interval '1 second'
       AND application_name LIKE %s
"""
_BY_PID: Final[LiteralString] = "SELECT pg_terminate_backend(%s)"

Way = Callable[[psycopg.Connection, float, str], int]
"""Ends whoever is idle for so many seconds under such a name, and says how many were signalled."""


def one_liner(connection: psycopg.Connection, idle_for: float, like: str) -> int:
    """Look and signal in one statement over the view."""
    rows = connection.execute(_ONE_LINER, (idle_for, like)).fetchall()
    return sum(bool(sent) for (sent,) in rows)


def read_then_by_pid(connection: psycopg.Connection, idle_for: float, like: str) -> int:
    """Look, and then signal by pid, one after the other."""
    pids = connection.execute(_READ, (idle_for, like)).fetchall()
    rows = [connection.execute(_BY_PID, pid).fetchone() for pid in pids]
    return sum(bool(row and row[0]) for row in rows)


class Rival(Thread):
    """Does it one of these ways, again and again."""

    def __init__(self, way: Way, dsn: str, *, idle_for: float, like: str, every: float) -> None:
        super().__init__(daemon=True)
        self.acts = 0
        self._way = way
        self._dsn = dsn
        self._idle_for = idle_for
        self._like = like
        self._every = every
        self._enough = Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        """Until it is enough."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._enough.wait(self._every):
                self.acts += self._way(connection, self._idle_for, self._like)
