"""Single sessions after a dry run or a termination, and the server's own counts of terminations."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

import psycopg

from reaper.insight.dryrun.outcomes import Standing
from reaper.policy.session import Identity, SessionId
from reaper.policy.time import Instant, as_datetime
from reaper.postgres.connection import Connection
from reaper.postgres.sql import statement

_WATCHED: Final = statement("watched")
_NEWCOMERS: Final = statement("newcomers")
_ONE_BY_ONE: Final = 8
_MOST_NEWCOMERS: Final = 1_000


class Seen(NamedTuple):
    """The state of sessions at one moment: None has exited; hidden sessions are missing."""

    at: Instant
    sessions: dict[SessionId, Standing | None]


class Newcomer(NamedTuple):
    """A session that has connected recently."""

    began: Instant
    identity: Identity


class SessionWatcher:
    """Reads single sessions on the connection that observes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def look(self, ids: Collection[SessionId]) -> Seen | None:
        """The state of these sessions; None if the statement failed. Raises Lost."""
        params = {"pids": [one.pid for one in ids], "one_by_one": _ONE_BY_ONE}
        try:
            rows = await self._connection.rows(_WATCHED, params)
        except psycopg.Error:
            return None
        hidden = {pid for pid, there, began, *_ in rows if there is not None and began is None}
        stand = {
            SessionId(pid, began): Standing(*times) for pid, _, began, *times, _ in rows if began is not None
        }
        found = {one: stand.get(one) for one in ids if one.pid not in hidden}
        return Seen(at=rows[0][-1], sessions=found) if rows else None

    async def newcomers(self, roles: Collection[str], since: Instant) -> list[Newcomer] | None:
        """The newest sessions of these roles since then; None if the statement failed. Raises Lost."""
        params = {
            "since": as_datetime(since),
            "roles": list(roles),
            "one_by_one": _ONE_BY_ONE,
            "most": _MOST_NEWCOMERS,
        }
        try:
            rows = await self._connection.rows(_NEWCOMERS, params)
        except psycopg.Error:
            return None
        return [Newcomer(began, Identity(*names)) for began, *names in rows]


_COUNTERS: Final = statement("counters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The sums of the server's counters over all databases."""

    at: Instant
    started: Instant
    """When the server was started; a crash resets the counters."""
    databases: int
    """Dropping a database drops its count."""
    terminations: int | None
    """Not counted before 14."""
    reset: Instant | None
    """When a count was last set to zero."""


async def read_counters(connection: Connection) -> Counters | None:
    """The server's counters; None if they cannot be read. Raises Lost."""
    try:
        ((at, started, databases, terminations, reset),) = await connection.rows(_COUNTERS)
    except psycopg.Error:
        return None
    return Counters(at=at, started=started, databases=databases, terminations=terminations, reset=reset)
