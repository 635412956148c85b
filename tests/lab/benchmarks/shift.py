"""The reaper's cycles on a connection of this process, from look to metrics, without the rests between."""

import io
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from reaper import __version__
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.config import Server, Settings, read
from reaper.policy.deadline import rest_after
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import Reap
from reaper.policy.time import from_datetime
from reaper.postgres.terminator import Settled
from reaper.service.clock import ClockWatch
from reaper.service.connection import RunOptions, lookahead, opened, station
from reaper.service.cycle import FLIGHT, Cycle, run_cycle
from reaper.service.reporter import Reporter
from reaper.telemetry.log import LogFormat, LogLevel, make_log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.notify import Notifier

_MANNER: Final = RunOptions()


class Shift:
    """One connection under one policy file."""

    def __init__(self, dsn: str, policies: str, record: Path, *, everybody: bool = False) -> None:
        self._server = Server(name=record.stem, dsn=dsn)
        self._settings: Settings = read(policies.encode(), file="policies.yaml")
        self._record = record
        self._everybody = everybody
        self._stack = AsyncExitStack()
        self._memory = Memory()
        self._log = make_log(LogFormat.JSON, LogLevel.INFO, to=io.StringIO())

    async def __aenter__(self) -> Self:
        rules = self._settings.rules
        async with AsyncExitStack() as stack:
            at = await stack.enter_async_context(opened(self._server, rules, _MANNER))
            ledger = Ledger([FileSink(self._record)], clock=lambda: datetime.now(UTC), run="benchmark")
            stack.callback(ledger.close)
            ahead = None if self._everybody else lookahead(self._settings)
            self._post = station(self._server, at, rules, _MANNER, ledger, clock=ClockWatch(), ahead=ahead)
            notifier = Notifier(log=self._log)
            self._reporter = Reporter(
                "server", log=self._log, metrics=Metrics(__version__), notifier=notifier
            )
            self._reporter.connected(at)
            self._reporter.judges_by(rules)
            self.backend = at.link.pid
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def sight(self) -> None:
        """See everybody once, so that the next cycle may act."""
        self._memory = Memory.of(await self._post.observer.observe(self._settings.rules))

    async def condemned(self) -> Sequence[Reap]:
        """Whom a cycle would act on now."""
        rules = self._settings.rules
        snapshot = await self._post.observer.observe(rules)
        return decide(snapshot=snapshot, rules=rules, memory=self._memory).reaps

    async def act(self, reaps: Sequence[Reap]) -> Settled:
        """Nothing of a cycle but its acts, until all are seen gone: no look, no decision, no record."""
        hand = self._post.hands.enforce
        heard = from_datetime(datetime.now(UTC))  # the server's clock is this one
        for first in range(0, len(reaps), FLIGHT):
            await hand.signal(reaps[first : first + FLIGHT], heard=heard)
        return [end async for ends in hand.confirm(reaps) for end in ends]

    async def cycle(self) -> Cycle:
        """One whole cycle, and when the next would be due."""
        settings = self._settings
        cycle = await run_cycle(
            self._post, "1", rules=settings.rules, memory=self._memory, stopping=lambda: False
        )
        self._memory = cycle.remembered
        self._reporter.cycled(cycle, took=0.0)
        rest_after(cycle.snapshot, settings.rules, interval=settings.interval, precision=settings.precision)
        return cycle
