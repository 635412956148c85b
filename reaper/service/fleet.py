"""All servers of a policy file at once: a named task each, and if one breaks, all end with its reason."""

import asyncio
from collections.abc import Sequence

from reaper.config import Server, Settings
from reaper.record.ledger import Ledger
from reaper.service.server_loop import ServerLoop
from reaper.service.signals import heed_signals
from reaper.service.station import Manner
from reaper.service.tally import Tally
from reaper.telemetry.log import Log


async def run_fleet(
    servers: Sequence[Server], settings: Settings, manner: Manner, *, ledger: Ledger, log: Log
) -> Sequence[tuple[Server, Tally]]:
    """Cycle at every server until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    heed_signals(stop, ledger, log)
    loops = [ServerLoop(server, settings, manner, ledger=ledger, log=log, stop=stop) for server in servers]
    async with asyncio.TaskGroup() as group:
        for server, loop in zip(servers, loops, strict=True):
            group.create_task(loop.run(), name=f"server {server.name}")
    return [(server, loop.tally) for server, loop in zip(servers, loops, strict=True)]
