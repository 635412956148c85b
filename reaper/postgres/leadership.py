"""Leadership at a server: an advisory lock, held by the connection that terminates.

This fences: a reaper that has lost the lock has lost its connection and cannot terminate any session. A
frozen reaper loses both when its lease runs out.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import psycopg

from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.time import Instant
from reaper.postgres.connection import Connection
from reaper.postgres.errors import ServerError, sentence
from reaper.postgres.sql import statement

_SEEK: Final = statement("seek_leadership")
_LEADER: Final = statement("leader")
_SPACE: Final = 0x7265_6170
"""`reap`, in the letters' own numbers."""


class LeaderLock(IntEnum):
    """Which lock to take: a dry run must not keep an enforcing reaper from leading."""

    ENFORCING = 1
    DRY_RUN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The session that holds the lock instead of us."""

    pid: int
    role: str | None
    application: str | None
    database: str
    ours: bool

    def __str__(self) -> str:
        """A sentence, with the fix if the holder is no reaper."""
        who = f"pid {self.pid}, role {self.role}, application {self.application!r}"
        if self.ours:
            return f"another reaper leads: {who}"
        cure = f"SELECT pg_terminate_backend({self.pid});"
        return f"a stranger sits on the reaper's lock: {who}; until it goes nobody is terminated: {cure}"


class Leadership:
    """Tries to lead at one server."""

    def __init__(self, connection: Connection, *, office: LeaderLock, role: str) -> None:
        self._connection = connection
        self._key = {"space": _SPACE, "key": int(office)}
        self._role = role
        self.at: Instant | None = None
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
        return [self._holder(*row) for row in rows]

    def _holder(self, pid: int, role: str | None, application: str | None, database: str) -> Holder:
        ours = role == self._role and application == REAPER_APPLICATION
        return Holder(pid=pid, role=role, application=application, database=database, ours=ours)
