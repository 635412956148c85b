"""Metrics of the service, as Prometheus scrapes them.

Counters are counted in every cycle. Gauges are calculated in every scrape, from the last snapshot of each
server; a server whose connection was lost shows no slots and no sessions, because they are unknown. A server
that leaves by reload takes its counters along. A policy that leaves keeps its counters until the process
ends: its last outcomes must not be lost between two scrapes.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.policy.plan import Candidate, Outcome, Plan, Result
from reaper.policy.rules import Action, Mode, Policy, Rules
from reaper.policy.session import Snapshot
from reaper.policy.time import Timestamp
from reaper.telemetry.metrics.exposition import Histogram, MetricsPage, Sample, expose
from reaper.telemetry.metrics.samples import ApplicationLabels, lateness, of_cycle, of_sessions

_CYCLE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LATENESS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ZEROS: Final[Mapping[tuple[str, tuple[str, ...]], int]] = {
    ("clock_steps_total", ()): 0,
    **{("failures_total", (kind,)): 0 for kind in ("unreachable", "denied", "cycle", "audit_log")},
}
"""Shown from the start, so that the first increase is seen."""


@dataclass(slots=True)
class ServerCounters:
    """What is counted at one server; it survives a reload."""

    counts: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=lambda: Counter(_ZEROS))
    """By metric and labels."""
    labels: ApplicationLabels = field(default_factory=ApplicationLabels)
    cycles: Histogram = field(default_factory=lambda: Histogram(_CYCLE_SECONDS))
    lateness: Histogram = field(default_factory=lambda: Histogram(_LATENESS_SECONDS))


@dataclass(slots=True)
class ServerMetrics:
    """The state of one server, and its counters."""

    counters: ServerCounters = field(default_factory=ServerCounters)
    connected: bool = False
    denied: bool = False
    leads: bool = False
    last_success: float = 0.0
    rules: Rules | None = None
    snapshot: Snapshot | None = None
    full_snapshot: Snapshot | None = None
    """The last snapshot without a prefilter."""
    plan: Plan | None = None
    watched_since: Timestamp | None = None
    """Since when, by the server's clock, the sessions were watched by these rules without a gap."""

    def connect(self) -> None:
        """Note that there is a connection."""
        self.connected, self.denied = True, False

    def disconnect(self) -> None:
        """Note that the connection was lost: the last snapshot is no longer true."""
        self.connected = self.leads = False
        self.snapshot = self.full_snapshot = self.plan = self.watched_since = None

    def use_rules(self, rules: Rules) -> None:
        """Decide by these rules from now on; every series that they can count is shown at zero."""
        if rules != self.rules:
            self.rules, self.watched_since = rules, None
        for policy in rules.enabled:
            for name, *labels in _series(policy):
                self.count(name, policy.name, policy.mode.value, *labels, by=0)

    def cycle(
        self,
        plan: Plan,
        settled: Sequence[tuple[Candidate, Outcome]],
        *,
        took: float,
        clock_stepped: bool = False,
    ) -> None:
        """Count a cycle; before `succeed`, because lateness needs the plan of the previous one."""
        self.counters.cycles.observe(took)
        self.count("clock_steps_total", by=int(clock_stepped))
        for trip in plan.trips:
            self.count("safety_limit_trips_total", trip.policy.name, trip.policy.mode.value)
        for candidate, outcome in settled:
            result = outcome.result.value
            self.count("outcomes_total", candidate.policy.name, candidate.mode.value, result)
        since = None if clock_stepped else self.watched_since
        for late in lateness(settled, before=self.plan, watched_since=since):
            self.counters.lateness.observe(late)

    def succeed(self, snapshot: Snapshot, plan: Plan, *, clock_stepped: bool = False) -> None:
        """Show the snapshot and the plan of a cycle that succeeded."""
        if clock_stepped or self.watched_since is None:
            self.watched_since = snapshot.at
        self.full_snapshot = snapshot if snapshot.left_out is None else self.full_snapshot
        self.snapshot, self.plan, self.last_success = snapshot, plan, time.time()

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Increase a counter; `name` is without prefix, `labels` are without the server."""
        self.counters.counts[name, labels] += by

    def samples(self) -> Iterator[Sample]:
        """The samples of this server, without its name."""
        yield "connected", (), float(self.connected)
        yield "denied", (), float(self.denied)
        yield "leader", (), float(self.leads)
        yield "last_success_timestamp_seconds", (), self.last_success
        # Copies, here and below: the loop changes them while a thread writes the page.
        rules, snapshot, plan, full_snapshot = self.rules, self.snapshot, self.plan, self.full_snapshot
        if rules:
            for mode in Mode:
                yield "policies", (mode.value,), sum(policy.mode is mode for policy in rules.policies)
        if rules and snapshot and plan:
            yield from of_cycle(snapshot, plan, rules)
        if full_snapshot:
            yield from of_sessions(full_snapshot, self.counters.labels, time.monotonic())
        for (name, labels), count in self.counters.counts.copy().items():
            yield name, labels, count
        yield "cycle_seconds", (), self.counters.cycles
        yield "lateness_seconds", (), self.counters.lateness


def _series(policy: Policy) -> Iterator[tuple[str, ...]]:
    yield ("safety_limit_trips_total",)
    if policy.mode is Mode.DRY_RUN:
        yield "outcomes_total", Result.DRY_RUN.value
        for outcome in DryRunOutcome:
            yield "dry_run_outcomes_total", outcome.value
        return
    yield ("refill_guard_pauses_total",)
    other_action = Result.TERMINATED if policy.action is Action.CANCEL else Result.CANCELLED
    for result in Result:
        if result not in {other_action, Result.DRY_RUN}:
            yield "outcomes_total", result.value


@dataclass(slots=True)
class ReloadGauges:
    """The outcome of the last reload."""

    succeeded: bool = True
    last_success: float = field(default_factory=time.time)

    def succeed(self) -> None:
        """Note that a reload put new settings in force, or found them unchanged."""
        self.succeeded, self.last_success = True, time.time()

    def failed(self) -> None:
        """Note that a policy file with mistakes was rejected."""
        self.succeeded = False


@dataclass(slots=True)
class AuditTableGauges:
    """The state of the copy of the audit log in a table."""

    connected: bool = False
    entries: int = 0
    waiting: int = 0
    """Bytes that are not in the table yet."""
    oldest: float | None = None
    """When the oldest entry that is not in the table was written."""
    last_success: float = 0.0
    failures: Counter[str] = field(
        default_factory=lambda: Counter({"unreachable": 0, "denied": 0, "file": 0, "missed": 0})
    )

    def arrived(self, entries: int) -> None:
        """Count entries that the table took."""
        self.entries += entries
        self.last_success = time.time()

    def samples(self) -> Iterator[Sample]:
        """The samples of the copy."""
        yield "audit_table_connected", (), float(self.connected)
        lag = 0.0 if self.oldest is None else max(time.time() - self.oldest, 0.0)
        yield "audit_table_lag_seconds", (), lag
        yield "audit_table_lag_bytes", (), self.waiting
        yield "audit_table_last_success_timestamp_seconds", (), self.last_success
        yield "audit_table_entries_total", (), self.entries
        for kind, count in self.failures.copy().items():
            yield "audit_table_failures_total", (kind,), count


class Metrics:
    """All metrics of one process."""

    def __init__(self, version: str) -> None:
        self.servers: dict[str, ServerMetrics] = {}
        self.reload = ReloadGauges()
        self.audit_table: AuditTableGauges | None = None
        self.notifications = Counter[tuple[str, str]]()
        """By hook and result: `sent` and `failed` messages, `dropped` lines."""
        self._process: tuple[Sample, ...] = (
            ("build_info", (version,), 1),
            ("start_timestamp_seconds", (), time.time()),
        )
        self._settings: tuple[Sample, ...] = ()

    def put_in_force(self, *, digest: str, interval_seconds: float) -> None:
        """Show these settings."""
        self._settings = ("policy_file_info", (digest,), 1), ("interval_seconds", (), interval_seconds)

    def server(self, name: str) -> ServerMetrics:
        """New metrics for a server; the counters go on if it was there before."""
        before = self.servers.get(name)
        self.servers[name] = new = ServerMetrics(before.counters if before else ServerCounters())
        return new

    def forget(self, name: str) -> None:
        """Remove a server; what its last cycle still counts is shown nowhere."""
        self.servers.pop(name, None)

    def exposition(self, accept: str = "") -> MetricsPage:
        """The page for a scraper; it may be called in a thread."""
        return expose(self._samples(), accept)

    def _samples(self) -> Iterator[Sample]:
        yield from (*self._process, *self._settings)
        yield "reload_success", (), float(self.reload.succeeded)
        yield "reload_last_success_timestamp_seconds", (), self.reload.last_success
        for (hook, result), count in self.notifications.copy().items():
            if result == "dropped":
                yield "notification_lines_dropped_total", (hook,), count
            else:
                yield "notifications_total", (hook, result), count
        if self.audit_table:
            yield from self.audit_table.samples()
        for server, metrics in self.servers.copy().items():
            for name, labels, value in metrics.samples():
                yield name, (server, *labels), value
