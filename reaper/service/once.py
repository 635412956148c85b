"""One cycle, for cron and CI: two snapshots, because no session is terminated on first sight."""

from typing import Final

from reaper.audit.ledger import Ledger
from reaper.config import Server, Settings
from reaper.policy.memory import Memory
from reaper.policy.plan import Result
from reaper.policy.time import seconds
from reaper.postgres.leadership import Holder, Leadership
from reaper.service.clock import ClockWatch
from reaper.service.connection import RunOptions, cycle_context, lease_duration, opened
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
    """Take a snapshot, then run a cycle a moment later; return the leader if another reaper leads here."""
    rules = settings.rules_for(server)
    log = log.bind(server=server.name)
    async with opened(server, rules, options, lease=lease_duration(settings)) as at:
        context = cycle_context(server, at, rules, options, ledger, clock=ClockWatch())
        warn(at, log)
        leadership = Leadership(at.connection, lock=options.leader_lock, role=at.probe.role)
        if not await leadership.seek():
            holder = await leadership.holder()
            log.warning(events.STANDS_BY, why=str(holder or "another reaper leads"))
            return holder
        # The first snapshot is not decided on: it only makes every session one that was seen before.
        context.clock.begin()
        first = await context.observer.observe(rules)
        context.clock.step(first.at)
        await pause(seconds(settings.min_interval), stop)
        cycle = await run_cycle(context, "1", rules=rules, memory=Memory().after(first), stopping=stop.is_set)
        if _MAYBE_TERMINATED & cycle.results.keys():
            # Not after quiet cycles, which cron may run every minute: the last count is still the same.
            await CounterLog(at.connection, context.author, ledger).log_last()
    report(cycle, log)
    return cycle
