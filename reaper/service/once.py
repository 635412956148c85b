"""One cycle, for cron and CI: it looks twice, for nobody is terminated on first sight."""

import asyncio

from reaper.config import Server, Settings
from reaper.policy.memory import Memory
from reaper.policy.spans import seconds
from reaper.record.ledger import Ledger
from reaper.service.cycle import Cycle, run_cycle
from reaper.service.pause import pause
from reaper.service.server_loop import report
from reaper.service.signals import heed_signals
from reaper.service.station import Manner, opened, station
from reaper.telemetry.log import Log


async def run_once(server: Server, settings: Settings, manner: Manner, *, ledger: Ledger, log: Log) -> Cycle:
    """Look, look again a moment later, and carry out what both looks agree on."""
    stop = asyncio.Event()
    heed_signals(stop, ledger, log)
    async with opened(server, settings.rules, manner) as at:
        post = station(server, at, settings.rules, manner, ledger)
        first = await post.observer.observe(settings.rules)
        post.clock.step(first.at)
        await pause(seconds(settings.precision), stop)
        cycle = await run_cycle(
            post, "1", rules=settings.rules, memory=Memory().after(first), stopping=stop.is_set
        )
    report(cycle, log.bind(server=server.name))
    return cycle
