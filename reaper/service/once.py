"""One cycle, for cron and CI: two snapshots, because no session is terminated on first sight."""

from typing import Final

from reaper.audit.ledger import Ledger
from reaper.config import Server, Settings
from reaper.policy.memory import Memory
from reaper.policy.plan import Result
from reaper.policy.time import seconds
from reaper.postgres.leadership import Holder, Leadership
from reaper.service.clock import ClockWatch
from reaper.service.connection import RunOptions, lease_duration, office_of, opened, station
from reaper.service.counters import CounterLog
from reaper.service.cycle import Cycle, run_cycle
from reaper.service.pause import Flag, pause
from reaper.service.reporter import report, warn
from reaper.telemetry import events
from reaper.telemetry.log import Log

_MAYBE_TERMINATED: Final = {Result.TERMINATED, Result.SIGNALLED, Result.UNKNOWN}


async def run_once(
    server: Server, settings: Settings, options: RunOptions, *, ledger: Ledger, log: Log, stop: Flag
) -> Cycle | Holder | None:
    """Look, look again a moment later, carry out what both looks agree on; or say who leads here instead."""
    rules = settings.rules_for(server)
    log = log.bind(server=server.name)
    async with opened(server, rules, options, lease=lease_duration(settings)) as at:
        post = station(server, at, rules, options, ledger, clock=ClockWatch())
        warn(at, log)
        leadership = Leadership(at.link, lock=office_of(options), role=at.probe.role)
        if not await leadership.seek():
            holder = await leadership.holder()
            log.warning(events.STANDS_BY, why=str(holder or "another reaper leads"))
            return holder
        post.clock.begin()
        first = await post.observer.observe(rules)
        post.clock.step(first.at)
        await pause(seconds(settings.min_interval), stop)
        cycle = await run_cycle(post, "1", rules=rules, memory=Memory().after(first), stopping=stop.is_set)
        if _MAYBE_TERMINATED & cycle.results.keys():
            # Not in quiet cycles, of which cron has one a minute: the last count holds on.
            await CounterLog(at.link, post.author, ledger).log_last()
    report(cycle, log)
    return cycle
