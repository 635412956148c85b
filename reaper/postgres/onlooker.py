"""Looking at single sessions again: those that a rehearsal took, and whoever came after a termination."""

from collections.abc import Collection
from typing import Final, NamedTuple

import psycopg

from reaper.policy.fates import Standing
from reaper.policy.session import SessionId
from reaper.policy.spans import Instant
from reaper.postgres.link import Link
from reaper.postgres.sql import statement

_WATCHED: Final = statement("watched")
_ONE_BY_ONE: Final = 8


class Seen(NamedTuple):
    """How sessions stood at one moment: None has gone; of whom nothing may be read nothing is said."""

    at: Instant
    sessions: dict[SessionId, Standing | None]


class Onlooker:
    """Asks one small statement, on the connection that observes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def look(self, ids: Collection[SessionId]) -> Seen | None:
        """How these stand; nothing when the server does not say. Raises Lost."""
        params = {"pids": [one.pid for one in ids], "one_by_one": _ONE_BY_ONE}
        try:
            rows = await self._link.rows(_WATCHED, params)
        except psycopg.Error:
            return None
        hidden = {pid for pid, there, began, *_ in rows if there is not None and began is None}
        stand = {
            SessionId(pid, began): Standing(*times) for pid, _, began, *times, _ in rows if began is not None
        }
        found = {one: stand.get(one) for one in ids if one.pid not in hidden}
        return Seen(at=rows[0][-1], sessions=found) if rows else None
