"""Observe one server outside a run, for the commands that only read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from reaper.config import Server
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration
from reaper.postgres.preflight import refuse
from reaper.postgres.server_facts import read_server_facts
from reaper.service.connection import OpenConnection, RunOptions, opened

# Through a pooler, or without the right to see all sessions, a snapshot would look complete and be wrong.
_MISLEADING: Final = frozenset({"pooler", "visibility", "version"})
_MAX_SNAPSHOTS: Final = 60


@asynccontextmanager
async def open_to_observe(
    server: Server, options: RunOptions, *, lease: Duration | None = None
) -> AsyncIterator[OpenConnection]:
    """Connect, and raise Refused if a snapshot over this connection would be misleading."""
    async with opened(server, None, options, lease=lease) as at:
        refuse(tuple(found for found in at.findings if found.check in _MISLEADING))
        yield at


def snapshot_interval(span: Duration) -> Duration:
    """Return the time between two snapshots: a second, or longer if that would be more than 60 snapshots."""
    return max(Duration(SECOND), Duration(span // _MAX_SNAPSHOTS))


async def observe_for(
    server: Server, span: Duration, add: Callable[[Snapshot], None], advance: Callable[[float], None]
) -> tuple[ServerFacts, ServerFacts]:
    """Pass a snapshot to `add` each interval during `span`; return the server's facts before and after."""
    loop = asyncio.get_running_loop()
    # Without keepalives and timeouts of our own: the settings read here must be those of all other sessions.
    async with open_to_observe(server, RunOptions(dry_run=True, tuned=False)) as at:
        before = await read_server_facts(at.link, at.probe)
        began = loop.time()
        while (left := span / SECOND - (loop.time() - began)) > 0:
            add(await at.observer.all_sessions())
            pause = min(left, snapshot_interval(span) / SECOND)
            await asyncio.sleep(pause)
            advance(pause)
        # Advisory locks and blocked sessions are expensive to read: the last snapshot alone has them.
        add(await at.observer.observe(None))
        return before, await read_server_facts(at.link, at.probe)
