"""A clock that tests advance, settings, and what a service reports."""

import io
import json
from dataclasses import dataclass, field
from typing import Any, Final

from reaper.config import Server, Settings
from reaper.policy.rules import Policy, Rules
from reaper.policy.time import SECOND, Duration
from reaper.service.connection import RunOptions
from reaper.service.fleet import Fleet
from reaper.service.server_loop import LoopContext, ServerLoop
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.notify import Hook, Notifier
from tests.unit.audit.build import MemorySink, ledger

ORDERS: Final = Server(name="orders", dsn="host=db-1")
BILLING: Final = Server(name="billing", dsn="host=db-2")


@dataclass(slots=True)
class Clock:
    """Monotonic seconds that pass when a test says so."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def settings(*policies: Policy, interval: float = 10, servers: tuple[Server, ...] = ()) -> Settings:
    return Settings(
        rules=Rules(policies=policies),
        interval=Duration(round(interval * SECOND)),
        min_interval=Duration(SECOND),
        servers=servers,
        warnings=(),
    )


@dataclass(slots=True)
class Reports:
    """A log, metrics and a notifier, and what they received."""

    written: io.StringIO = field(default_factory=io.StringIO)
    metrics: Metrics = field(default_factory=lambda: Metrics("1.2.3"))
    log: Log = field(init=False)
    notifier: Notifier = field(init=False)

    def __post_init__(self) -> None:
        self.log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=self.written)
        self.notifier = Notifier(log=self.log)
        occasions = frozenset({"terminations", "safety_limit", "unreadable", "failures"})
        self.notifier.use([Hook(name="ops", url="http://chat/", on=occasions, every_seconds=60)])

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written.getvalue().splitlines()]

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.logged if line["event"] == event]

    @property
    def notified(self) -> list[str]:
        """The lines of the next message."""
        (box,) = self.notifier._queues.values()
        return list(box.lines)


def fleet(reports: Reports, now: Settings) -> Fleet:
    context = LoopContext(settings=lambda: now, options=RunOptions(), ledger=ledger(MemorySink()))
    return Fleet(context, log=reports.log, metrics=reports.metrics, notifier=reports.notifier)


class StartedLoops(list[ServerLoop]):
    """The loops that a fleet started; none of them runs."""

    @property
    def names(self) -> list[str]:
        return [loop.server.name for loop in self]
