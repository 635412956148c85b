"""The loop of one server: connect and keep the connection, cycle at every deadline, go on by itself."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from reaper.config import Server, Settings
from reaper.policy.deadline import rest_after
from reaper.policy.memory import Memory
from reaper.policy.spans import SECOND, Span, seconds, words
from reaper.postgres.errors import Refused, ServerError
from reaper.postgres.observer import ObservingFailed
from reaper.postgres.preflight import Level
from reaper.record.ledger import Ledger
from reaper.record.writer import RecordFailed
from reaper.service.cycle import Cycle, Station, run_cycle
from reaper.service.pause import pause
from reaper.service.station import Manner, Opened, opened, station
from reaper.service.tally import Tally
from reaper.telemetry import events
from reaper.telemetry.log import Log

_LEASE_INTERVALS: Final = 3
_SHORTEST_LEASE: Final = Span(15 * SECOND)
_LONGEST_BACKOFF: Final = 60.0
_EARNEST: Final = (Level.WARNING, Level.REFUSAL)


class ServerLoop:
    """Runs cycles at one server until it is asked to stop."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        manner: Manner,
        *,
        ledger: Ledger,
        log: Log,
        stop: asyncio.Event,
    ) -> None:
        self._server = server
        self._settings = settings
        self._manner = manner
        self._ledger = ledger
        self._log = log.bind(server=server.name)
        self._stop = stop
        self._cycles = 0
        self.tally = Tally()

    async def run(self) -> None:
        """Connect, cycle, and connect again when the server was lost: one that is away is no crash."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ServerError),
            wait=wait_exponential_jitter(initial=1, max=_LONGEST_BACKOFF, jitter=1),
            sleep=lambda delay: pause(delay, self._stop),
            before_sleep=self._say_away,
            stop=lambda _: self._stop.is_set(),
            retry_error_callback=lambda _: None,
        )
        while not self._stop.is_set():
            # A fresh round of attempts after each connection that served: the back-off starts small again.
            await attempts(self._serve)

    async def _serve(self) -> None:
        lease = Span(max(_LEASE_INTERVALS * self._settings.interval, _SHORTEST_LEASE))
        rules = self._settings.rules
        before = self._cycles
        async with opened(self._server, rules, self._manner, lease=lease) as at:
            post = station(self._server, at, rules, self._manner, self._ledger)
            self._say_connected(at)
            try:
                await self._cycle_until_stop(post)
            except ServerError as lost:
                if self._cycles == before:
                    raise  # it never served: back off
                self._log.warning(events.SERVER_AWAY, why=str(lost), retry="at once")

    async def _cycle_until_stop(self, post: Station) -> None:
        memory = Memory()
        while not self._stop.is_set():
            started = time.monotonic()
            rest = self._settings.interval
            try:
                cycle = await self._cycle(post, memory)
            except ObservingFailed as failed:
                self._fail(events.CYCLE_FAILED, failed)
            except RecordFailed as failed:
                self._fail(events.RECORD_FAILED, failed)
            else:
                memory = cycle.remembered
                rest = self._rest(cycle)
            await pause(seconds(rest) - (time.monotonic() - started), self._stop)

    async def _cycle(self, post: Station, memory: Memory) -> Cycle:
        name = str(self._cycles + 1)
        rules = self._settings.rules
        cycle = await run_cycle(post, name, rules=rules, memory=memory, stopping=self._stop.is_set)
        self._cycles += 1
        self.tally.add(cycle)
        report(cycle, self._log)
        return cycle

    def _rest(self, cycle: Cycle) -> Span:
        settings = self._settings
        return rest_after(
            cycle.snapshot, settings.rules, interval=settings.interval, precision=settings.precision
        )

    def _fail(self, event: str, error: Exception) -> None:
        self.tally.failures += 1
        self._log.error(event, why=str(error), next_try=words(self._settings.interval))

    def _say_connected(self, at: Opened) -> None:
        for found in at.findings:
            if found.level in _EARNEST:
                self._log.warning(events.SERVER_FINDING, finding=found.finding, mend=found.mend)
        slots = f"{at.probe.max_connections} slots"
        self._log.info(events.SERVER_CONNECTED, at=at.link.where, postgres=at.probe.major, slots=slots)

    def _say_away(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        event = events.SERVER_REFUSED if isinstance(error, Refused) else events.SERVER_AWAY
        self._log.error(event, why=str(error), retry=f"in {attempt.upcoming_sleep:.1f}s")


def report(cycle: Cycle, log: Log) -> None:
    """Say what a cycle did; quiet cycles are quiet."""
    if cycle.clock_step is not None:
        log.warning(events.CLOCK_STEPPED, by=words(cycle.clock_step), so="nobody is touched in this cycle")
    for trip in cycle.plan.brakes:
        log.error(events.POLICY_BRAKED, policy=trip.policy.name, mode=trip.policy.mode.value, why=trip.reason)
    if cycle.snapshot.unreadable:
        log.warning(events.SERVER_BLIND, unreadable=cycle.snapshot.unreadable, mend="GRANT pg_read_all_stats")
    if cycle.record_failed:
        log.error(events.RECORD_FAILED, why=str(cycle.record_failed))
    say: Callable[..., None] = log.info if cycle.settled else log.debug
    event = events.CYCLE_ACTED if cycle.settled else events.CYCLE_QUIET
    slots = cycle.snapshot.slots
    counts = {result.value: count for result, count in cycle.results.items()}
    say(event, cycle=cycle.name, **counts, slots=f"{slots.used}/{slots.total}")
