"""Looking at one server for a while: everybody at each look, and what is set there before and after."""

import asyncio
from collections.abc import Callable
from typing import Final

from reaper.config import Server
from reaper.insight.advice.evidence import Evidence, Watching
from reaper.policy.time import SECOND, Span
from reaper.postgres.ground import read_ground
from reaper.postgres.preflight import refuse
from reaper.service.connection import RunOptions, opened

MISLEADING: Final = frozenset({"pooler", "visibility", "version"})
"""Through a pooler or half blind, what we show would look true and be wrong."""

_MOST_LOOKS: Final = 60
_SOONEST: Final = Span(SECOND)


def pause_between(span: Span) -> Span:
    """A second, or longer where that would be very many looks."""
    return Span(max(_SOONEST, span // _MOST_LOOKS))


async def look_for(
    server: Server, watching: Watching, span: Span, *, told: Callable[[float], None] = lambda _: None
) -> Evidence:
    """Look again and again for so long; once when it is no time at all. Raises ServerError."""
    loop = asyncio.get_running_loop()
    async with opened(server, None, RunOptions(dry_run=True, tuned=False)) as at:
        refuse(tuple(found for found in at.findings if found.check in MISLEADING))
        before = await read_ground(at.link, at.probe)
        began = loop.time()
        while (left := span / SECOND - (loop.time() - began)) > 0:
            watching.add(await at.observer.everybody())
            pause = min(left, pause_between(span) / SECOND)
            await asyncio.sleep(pause)
            told(pause)
        # With every fact: they cost more, and of them the last word is enough.
        watching.add(await at.observer.observe(None))
        return watching.evidence(before=before, ground=await read_ground(at.link, at.probe))
