"""The server's own account of what was terminated, which nobody but the server writes."""

from dataclasses import dataclass
from typing import Final

import psycopg

from reaper.policy.time import Instant
from reaper.postgres.link import Link
from reaper.postgres.sql import statement

_COUNTERS: Final = statement("counters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the server has counted by now, in all databases together."""

    at: Instant
    started: Instant
    """When the server was started; a crash forgets what was counted before."""
    databases: int
    """With a database its count goes away."""
    terminations: int | None
    """Not counted before 14."""
    reset: Instant | None
    """When a count was last set to zero."""


async def read_counters(link: Link) -> Counters | None:
    """What the server has counted; nothing when it does not tell. Raises Lost."""
    try:
        ((at, started, databases, terminations, reset),) = await link.rows(_COUNTERS)
    except psycopg.Error:
        return None
    return Counters(at=at, started=started, databases=databases, terminations=terminations, reset=reset)
