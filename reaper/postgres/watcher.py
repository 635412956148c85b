"""Single sessions after a dry run or a termination, and the server's own counts of terminations."""

from collections.abc import Collection
from typing import Final, NamedTuple

import psycopg

from reaper.insight.dryrun.outcomes import SessionTimes
from reaper.policy.session import Identity, SessionId
from reaper.policy.time import Timestamp, as_datetime
from reaper.postgres.connection import Connection
from reaper.postgres.sql import statement

_WATCHED: Final = statement("watched")
_NEWCOMERS: Final = statement("newcomers")
_COUNTERS: Final = statement("counters")
_ONE_BY_ONE: Final = 8
"""Up to this number, sessions are read one by one; more of them all at once, which then costs less."""
_MAX_NEWCOMERS: Final = 1_000


class WatchedSessions(NamedTuple):
    """The state of sessions at one moment: None has exited; hidden sessions are missing."""

    at: Timestamp
    sessions: dict[SessionId, SessionTimes | None]


class Newcomer(NamedTuple):
    """A session that has connected recently."""

    began: Timestamp
    identity: Identity


class SessionWatcher:
    """Reads single sessions on the connection that observes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def look(self, ids: Collection[SessionId]) -> WatchedSessions | None:
        """The state of these sessions; None if the statement failed. Raises Lost."""
        params = {"pids": [one.pid for one in ids], "one_by_one": _ONE_BY_ONE}
        try:
            rows = await self._connection.rows(_WATCHED, params)
        except psycopg.Error:
            return None
        # A row without backend_start is one that we may not read: the session must not pass for gone.
        hidden = {pid for pid, there, began, *_ in rows if there is not None and began is None}
        present = {
            SessionId(pid, began): SessionTimes(*times)
            for pid, _, began, *times, _ in rows
            if began is not None
        }
        found = {one: present.get(one) for one in ids if one.pid not in hidden}
        return WatchedSessions(at=rows[0][-1], sessions=found) if rows else None

    async def newcomers(self, roles: Collection[str], since: Timestamp) -> list[Newcomer] | None:
        """The newest sessions of these roles since then; None if the statement failed. Raises Lost."""
        params = {
            "since": as_datetime(since),
            "roles": list(roles),
            "one_by_one": _ONE_BY_ONE,
            "most": _MAX_NEWCOMERS,
        }
        try:
            rows = await self._connection.rows(_NEWCOMERS, params)
        except psycopg.Error:
            return None
        return [Newcomer(began, Identity(*names)) for began, *names in rows]


class Counters(NamedTuple):
    """The sums of the server's counters over all databases."""

    at: Timestamp
    started: Timestamp
    """When the server was started; a crash resets the counters."""
    databases: int
    """Dropping a database drops its count."""
    terminations: int | None
    """Not counted before 14."""
    reset: Timestamp | None
    """When a count was last set to zero."""


async def read_counters(connection: Connection) -> Counters | None:
    """The server's counters; None if they cannot be read. Raises Lost."""
    try:
        (row,) = await connection.rows(_COUNTERS)
    except psycopg.Error:
        return None
    return Counters(*row)
