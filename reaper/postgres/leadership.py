"""Leadership at a server: an advisory lock, held by the connection that terminates.

This fences: a reaper that has lost the lock has lost its connection and cannot terminate any session. A
frozen reaper loses both when its lease runs out.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import psycopg

from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.time import Timestamp
from reaper.postgres.connection import Connection
from reaper.postgres.errors import ServerError, sentence
from reaper.postgres.sql import statement

_SEEK: Final = statement("seek_leadership")
_LEADER: Final = statement("leader")
_SPACE: Final = 0x7265_6170
"""`reap` in ASCII, so that other users of advisory locks are unlikely to choose the same number."""


class LeaderLock(IntEnum):
    """Which lock to take: a dry run must not keep an enforcing reaper from leading."""

    ENFORCING = 1
    DRY_RUN = 2


class Holder(NamedTuple):
    """The session that holds the lock instead of us."""

    pid: int
    role: str | None
    application: str | None
    database: str
    ours: bool

    def __str__(self) -> str:
        """A sentence, with the fix if the holder is no reaper."""
        session = f"pid {self.pid}, role {self.role}, application {self.application!r}"
        if self.ours:
            return f"another reaper leads: {session}"
        return (
            f"a session that is no reaper holds the reaper's lock: {session}; until it releases the lock "
            f"nothing is terminated: SELECT pg_terminate_backend({self.pid});"
        )


class Leadership:
    """Tries to lead at one server."""

    def __init__(self, connection: Connection, *, lock: LeaderLock, role: str) -> None:
        self._connection = connection
        self._key = {"space": _SPACE, "key": int(lock)}
        self._role = role
        self.at: Timestamp | None = None
        """The server's time at the last attempt."""

    async def seek(self) -> bool:
        """Try to take the lock; False if another session holds it."""
        # A session may take the same lock several times: call this again only after False.
        try:
            ((taken, self.at),) = await self._connection.rows(_SEEK, self._key)
        except psycopg.Error as error:
            message = f"could not seek the lead: {sentence(error)}"
            raise ServerError(message) from None
        return bool(taken)

    async def holder(self) -> Holder | None:
        """The session that holds the lock now; None if it has just been released."""
        return next(iter(await self._held(here=True)), None)

    async def elsewhere(self) -> Holder | None:
        """Another reaper that leads this server by the lock of another database."""
        return next((holder for holder in await self._held(here=False) if holder.ours), None)

    async def _held(self, *, here: bool) -> list[Holder]:
        try:
            rows = await self._connection.rows(_LEADER, {**self._key, "here": here})
        except psycopg.Error:
            return []
        # Any session may call itself a reaper; only one of our own role counts as one.
        ours = (self._role, REAPER_APPLICATION)
        return [
            Holder(pid, role, application, database, ours=(role, application) == ours)
            for pid, role, application, database in rows
        ]
