"""Who acts at a server: the holder of an advisory lock, on the very connection that holds it.

That is the fencing: a reaper that has lost the lock has lost its connection, and cannot terminate anybody. A
frozen one loses both when its lease runs out.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import psycopg

from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.time import Instant
from reaper.postgres.connection import Link
from reaper.postgres.errors import ServerError, sentence
from reaper.postgres.sql import statement

_SEEK: Final = statement("seek_leadership")
_LEADER: Final = statement("leader")
_SPACE: Final = 0x7265_6170
"""`reap`, in the letters' own numbers."""


class Office(IntEnum):
    """What there is to lead: a rehearsal does not stand in the way of who acts."""

    ACTING = 1
    REHEARSING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the lock instead of us."""

    pid: int
    role: str | None
    application: str | None
    database: str
    ours: bool

    def __str__(self) -> str:
        """A sentence for people, and the cure when the holder is no reaper."""
        who = f"pid {self.pid}, role {self.role}, application {self.application!r}"
        if self.ours:
            return f"another reaper leads: {who}"
        cure = f"SELECT pg_terminate_backend({self.pid});"
        return f"a stranger sits on the reaper's lock: {who}; until it goes nobody is terminated: {cure}"


class Leadership:
    """Seeks an office at one server."""

    def __init__(self, link: Link, *, office: Office, role: str) -> None:
        self._link = link
        self._key = {"space": _SPACE, "key": int(office)}
        self._role = role
        self.at: Instant | None = None
        """When the lead was last sought, by the server's clock."""

    async def seek(self) -> bool:
        """Try to take office; to be asked again only while the answer is no, for locks pile up."""
        try:
            ((taken, self.at),) = await self._link.rows(_SEEK, self._key)
        except psycopg.Error as error:
            message = f"could not seek the lead: {sentence(error)}"
            raise ServerError(message) from None
        return bool(taken)

    async def holder(self) -> Holder | None:
        """Who leads now; nobody when the lock has just been let go."""
        return next(iter(await self._held(here=True)), None)

    async def elsewhere(self) -> Holder | None:
        """Another reaper that leads the same server through another database, where its lock is not ours."""
        return next((holder for holder in await self._held(here=False) if holder.ours), None)

    async def _held(self, *, here: bool) -> list[Holder]:
        try:
            rows = await self._link.rows(_LEADER, {**self._key, "here": here})
        except psycopg.Error:
            return []
        return [self._holder(*row) for row in rows]

    def _holder(self, pid: int, role: str | None, application: str | None, database: str) -> Holder:
        ours = role == self._role and application == REAPER_APPLICATION
        return Holder(pid=pid, role=role, application=application, database=database, ours=ours)
