"""The loop of one server: connect and keep the connection, lead or stand by, cycle at every deadline."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.config import Server, Settings
from reaper.history.write import HistoryOptions
from reaper.policy.deadline import rest_after, shared_moment
from reaper.policy.memory import Memory
from reaper.policy.plan import Result, SkipReason
from reaper.policy.rules import Rules
from reaper.policy.time import Duration, seconds
from reaper.postgres.connection import reconnecting
from reaper.postgres.errors import Refused, ServerError
from reaper.postgres.leadership import Leadership
from reaper.postgres.observer import ObservingFailed
from reaper.postgres.watcher import SessionWatcher
from reaper.service.clock import ClockWatch
from reaper.service.connection import (
    OpenConnection,
    RunOptions,
    cycle_context,
    inspect_again,
    lease_duration,
    lookahead,
    opened,
)
from reaper.service.counters import CounterLog
from reaper.service.cycle import Cycle, CycleContext, run_cycle
from reaper.service.follow_up import FollowUp
from reaper.service.history import HistoryRecorder
from reaper.service.on_demand import OnDemandSnapshot
from reaper.service.pause import Flag, pause, run_unless
from reaper.service.reporter import Reporter
from reaper.service.status import ServerStatus, State

_AFTER_DEADLINE_SECONDS: Final = 0.002
_STANDBY_TRIES_PER_INTERVAL: Final = 5
_STANDBY_SECONDS: Final = 2.0
"""A standby tries to lead five times per interval, and at least once in these seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopContext:
    """What the loops of all servers share."""

    settings: Callable[[], Settings]
    options: RunOptions
    ledger: Ledger
    history: HistoryOptions | None = None
    """Where the history of every server is kept; None: no history is recorded."""


class ServerLoop:
    """Runs cycles at one server until `stop` is set."""

    def __init__(  # noqa: PLR0913 (state that is kept when a reload replaces the loop)
        self,
        server: Server,
        context: LoopContext,
        reporter: Reporter,
        status: ServerStatus,
        *,
        clock: ClockWatch,
        follow_up: FollowUp,
        recorder: HistoryRecorder | None = None,
        delay: float = 0.0,
    ) -> None:
        self.server = server
        self.status = status
        self.stop = Flag()
        self.wake = Flag()
        self.ended = asyncio.Event()
        self._context = context
        self._settings = context.settings()
        self._server_rules = self._settings.rules_for(server)
        self._reporter = reporter
        self._delay = delay
        self._cycles = 0
        self._useful = False  # a cycle ran, or a lead was waited for, over the present connection
        self.on_demand = OnDemandSnapshot(server.name, clock)
        self._clock = clock  # kept across connections: the clock may jump while there is none
        self._follow_up = follow_up
        self._recorder = recorder

    async def run(self) -> None:
        """Connect and run cycles; connect again after the server was lost."""
        try:
            await pause(self._delay, self.stop)
            await reconnecting(
                self._serve, sleep=self._wait, report=self._report_retry, stopped=self.stop.is_set
            )
        finally:
            self._reporter.dry_run_outcomes(self._follow_up.watch.end())
            if self._recorder:
                await self._recorder.end()
            self.ended.set()

    @property
    def _rules(self) -> Rules:
        settings = self._context.settings()
        if settings is not self._settings:
            self._settings, self._server_rules = settings, settings.rules_for(self.server)
        return self._server_rules

    async def _serve(self) -> None:
        self._useful = False
        lease = lease_duration(self._context.settings())
        try:
            async with AsyncExitStack() as stack:
                connecting = opened(self.server, self._rules, self._context.options, lease=lease)
                # A host that does not answer must not delay the shutdown.
                at = await run_unless(self.stop, stack.enter_async_context(connecting))
                if at is None:
                    return
                # A missing right is reported now and not with the first candidate.
                self._context_of(at, self._rules)
                self._reporter.connected(at)
                self.on_demand.set_available(available=True)
                if await self._lead(at):
                    await self._run_cycles(at)
        except ServerError as lost:
            if not self._useful:
                raise  # no cycle ran over this connection: back off before the next one
            self._report_lost(lost, "at once")
        finally:
            self._follow_up.watch.interrupted()
            self.on_demand.set_available(available=False)
            self._reporter.disconnected()

    async def _lead(self, at: OpenConnection) -> bool:
        """Stand by until this reaper leads; False if stopped before."""
        leadership = Leadership(at.connection, lock=self._context.options.leader_lock, role=at.probe.role)
        while not self.stop.is_set():
            if await self._try_to_lead(leadership):
                self._reporter.leads(await leadership.elsewhere())
                return True
            holder = await leadership.holder()
            self._useful = True
            self.status.set(State.STANDBY, str(holder or "another reaper leads"))
            self._reporter.stands_by(holder)
            share = seconds(self._context.settings().interval) / _STANDBY_TRIES_PER_INTERVAL
            await self.on_demand.rest(at, self._rules, min(share, _STANDBY_SECONDS), self.stop)
        return False

    async def _try_to_lead(self, leadership: Leadership) -> bool:
        """Try to take the lock, and compare the clocks: a jump during standby counts later."""
        self._clock.begin()
        taken = await leadership.seek()
        if leadership.at is not None and (step := self._clock.step(leadership.at)) is not None:
            self._reporter.clock_stepped(step)  # the next cycle will not see this jump
        return taken

    async def _run_cycles(self, at: OpenConnection) -> None:
        memory = Memory()
        rules, context = await self._refresh(at)
        counter_log = CounterLog(at.connection, context.author, context.ledger)
        watcher = SessionWatcher(at.connection)
        await counter_log.log()
        if self._recorder:
            await self._recorder.record_first(at)
        while not self.stop.is_set():
            while self._rules != rules:
                rules, context = await self._refresh(at)
                memory = memory.forgetting_dry_runs()
            rest = seconds(self._context.settings().interval)
            try:
                cycle = await self._cycle(context, rules, memory)
            except (ObservingFailed, AuditLogFailed) as failed:
                self._reporter.failed(failed)
                self.status.set(State.FAILING, str(failed))
            else:
                memory = cycle.remembered
                await self._follow(cycle, context, watcher)
                rest = self._seconds_until_next(cycle, rules)
                if cycle.results[Result.DENIED]:
                    # If a right was revoked, this raises with the fix; a later connection starts afresh:
                    # sessions that were denied meanwhile do not count as tried.
                    rules, context = await self._refresh(at)
            await counter_log.log_daily()
            rest = await self._record_history(at, rest)
            self.status.rests(rest)
            await self.on_demand.rest(at, rules, rest, self.stop, self.wake)
            self.wake.clear()
        if self._recorder:
            await self._recorder.record_last(at)
        await counter_log.log_last()

    async def _refresh(self, at: OpenConnection) -> tuple[Rules, CycleContext]:
        """Read rules and rights again, and set the lease for the current interval."""
        rules = self._rules
        await at.connection.lease(lease_duration(self._context.settings()))
        return rules, self._context_of(await inspect_again(at, rules, self._context.options), rules)

    async def _cycle(self, context: CycleContext, rules: Rules, memory: Memory) -> Cycle:
        started = time.monotonic()
        name = str(self._cycles + 1)
        cycle = await run_cycle(
            context,
            name,
            rules=rules,
            memory=self._follow_up.reminded(memory),
            stopping=lambda: self.stop.is_set() or self._rules != rules,
        )
        self._cycles += 1
        self._useful = True
        self.status.slots = cycle.snapshot.slots
        self.on_demand.cycled(cycle.snapshot, rules)
        failed = cycle.audit_log_failed
        self.status.set(State.FAILING if failed else State.WORKING, str(failed or ""))
        self._reporter.cycled(cycle, took=time.monotonic() - started)
        if self._recorder:
            self._recorder.note_cycle(cycle)
        return cycle

    async def _record_history(self, at: OpenConnection, rest: float) -> float:
        """Record a history snapshot within the rest; return what is left of the rest."""
        if self._recorder is None:
            return rest
        started = time.monotonic()
        await self._recorder.record(at, room=rest)
        return rest - (time.monotonic() - started)

    async def _follow(self, cycle: Cycle, context: CycleContext, watcher: SessionWatcher) -> None:
        interval = self._context.settings().interval
        news = await self._follow_up.cycled(cycle, watcher, context.author, interval=interval)
        self._reporter.dry_run_outcomes(news.outcomes)
        self._reporter.refill_guarded(news.paused)

    def _context_of(self, at: OpenConnection, rules: Rules) -> CycleContext:
        self._reporter.use_rules(rules)
        options, ledger = self._context.options, self._context.ledger
        ahead = lookahead(self._context.settings())
        return cycle_context(self.server, at, rules, options, ledger, clock=self._clock, ahead=ahead)

    def _seconds_until_next(self, cycle: Cycle, rules: Rules) -> float:
        """Seconds until the next cycle."""
        span, interval = self._rest(cycle, rules), self._context.settings().interval
        # Counted from the snapshot, which the server dated a moment earlier: no deadline is met too early.
        rest = seconds(span) - self._clock.seconds_since_snapshot + _AFTER_DEADLINE_SECONDS
        now = time.monotonic()
        return rest if span < interval else shared_moment(now + rest, interval=interval) - now

    def _rest(self, cycle: Cycle, rules: Rules) -> Duration:
        settings = self._context.settings()
        if any(skip.by is SkipReason.FIRST_SIGHTING for skip in cycle.plan.matched_skips):
            return settings.min_interval  # the second sighting that must agree
        return rest_after(cycle.snapshot, rules, interval=settings.interval, precision=settings.min_interval)

    async def _wait(self, delay: float) -> None:
        """Wait before a reconnect; a reload ends the wait, because its settings may fix the cause."""
        await pause(delay, self.stop, self.wake)
        self.wake.clear()

    def _report_retry(self, error: BaseException | None, delay: float) -> None:
        self._report_lost(error, f"in {delay:.1f}s")

    def _report_lost(self, error: BaseException | None, retry: str) -> None:
        refused = isinstance(error, Refused)
        self.status.set(State.DENIED if refused else State.UNREACHABLE, str(error))
        self._reporter.lost(str(error), refused=refused, retry=retry)
