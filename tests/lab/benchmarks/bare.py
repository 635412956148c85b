"""The yardstick: the least that a reaper of many servers could do, a prepared statement each on one loop."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

_STATEMENT: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity
     WHERE usename = 'app' AND state = 'idle' AND state_change < now() - interval '1 s'
"""


async def bare_cpu(dsns: Sequence[str], *, rounds: int, pause: float) -> float:
    """CPU seconds of one statement on a connection that is held, in rounds over all servers."""
    async with AsyncExitStack() as stack:
        opening = [AsyncConnection.connect(dsn, autocommit=True) for dsn in dsns]
        links = [await stack.enter_async_context(link) for link in await asyncio.gather(*opening)]
        await _round(links)
        spent = 0.0
        for _ in range(rounds):
            await asyncio.sleep(pause)
            before = time.process_time()
            await _round(links)
            spent += time.process_time() - before
    return spent / (rounds * len(links))


async def _round(links: Sequence[AsyncConnection[tuple[Any, ...]]]) -> None:
    await asyncio.gather(*map(_ask, links))


async def _ask(link: AsyncConnection[tuple[Any, ...]]) -> None:
    async with link.cursor(binary=True) as cursor:
        await cursor.execute(_STATEMENT, prepare=True)
        await cursor.fetchall()
