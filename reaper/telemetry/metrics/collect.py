"""Metrics of the service, as Prometheus scrapes them.

Counters are counted in every cycle. Gauges are calculated in every scrape, from the last snapshot of each
server; a server whose connection was lost shows no slots and no sessions, because they are unknown. A server
that leaves by reload takes its counters along. A policy that leaves keeps its counters until the process
ends: its last outcomes must not be lost between two scrapes.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.dryrun.outcomes import Fate
from reaper.policy.plan import Outcome, Plan, Reap, Result
from reaper.policy.rules import Action, Mode, Policy, Rules
from reaper.policy.session import Snapshot
from reaper.policy.time import Instant
from reaper.telemetry.metrics.exposition import Histogram, MetricsPage, Sample, expose
from reaper.telemetry.metrics.samples import ApplicationLabels, lateness, of_cycle, of_sessions

_CYCLE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LATENESS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_FAILURES: Final = ("unreachable", "denied", "cycle", "audit_log")
_ZEROS: Final[Mapping[tuple[str, tuple[str, ...]], int]] = {
    ("clock_steps_total", ()): 0,
    **{("failures_total", (kind,)): 0 for kind in _FAILURES},
}
"""Shown from the start, so that the first increase is seen."""
_TABLE_FAILURES: Final = ("unreachable", "denied", "file", "missed")


@dataclass(slots=True)
class ServerGauges:
    """The state of one server."""

    connected: bool = False
    denied: bool = False
    leads: bool = False
    last_success: float = 0.0
    rules: Rules | None = None
    snapshot: Snapshot | None = None
    full_snapshot: Snapshot | None = None
    """The last snapshot without a prefilter."""
    plan: Plan | None = None
    watched_since: Instant | None = None
    """Since when, by the server's clock, the sessions were watched by these rules without a gap."""

    def connect(self) -> None:
        """Note that there is a connection."""
        self.connected, self.denied = True, False

    def disconnect(self) -> None:
        """Note that the connection was lost: the last snapshot is no longer true."""
        self.connected = self.leads = False
        self.snapshot = self.full_snapshot = self.plan = self.watched_since = None

    def use_rules(self, rules: Rules) -> None:
        """Decide by these rules from now on."""
        if rules != self.rules:
            self.rules, self.watched_since = rules, None

    def succeed(self, snapshot: Snapshot, plan: Plan, *, clock_stepped: bool = False) -> None:
        """Note that a cycle succeeded."""
        if clock_stepped or self.watched_since is None:
            self.watched_since = snapshot.at
        self.full_snapshot = snapshot if snapshot.young is None else self.full_snapshot
        self.snapshot, self.plan, self.last_success = snapshot, plan, time.time()

    def samples(self, labels: ApplicationLabels) -> Iterator[Sample]:
        """The samples of this server, without its name."""
        yield "connected", (), float(self.connected)
        yield "denied", (), float(self.denied)
        yield "leader", (), float(self.leads)
        yield "last_success_timestamp_seconds", (), self.last_success
        # Copies: the loop may change them while a thread writes the page.
        rules, snapshot, plan, full_snapshot = self.rules, self.snapshot, self.plan, self.full_snapshot
        if rules:
            for mode in Mode:
                yield "policies", (mode.value,), sum(policy.mode is mode for policy in rules.policies)
        if rules and snapshot and plan:
            yield from of_cycle(snapshot, plan, rules)
        if full_snapshot:
            now = time.monotonic()
            yield from of_sessions(full_snapshot, admit=lambda names: labels.admit(names, now))


@dataclass(slots=True)
class ServerCounters:
    """The counters of one server; they survive a reload."""

    counts: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=lambda: Counter(_ZEROS))
    """By metric and labels."""
    labels: ApplicationLabels = field(default_factory=ApplicationLabels)
    cycles: Histogram = field(default_factory=lambda: Histogram(_CYCLE_SECONDS))
    lateness: Histogram = field(default_factory=lambda: Histogram(_LATENESS_SECONDS))

    def add(self, name: str, *labels: str, by: int = 1) -> None:
        """Count; `by=0` shows a series before its first event, so that its first increase is seen."""
        self.counts[name, labels] += by

    def start_at_zero(self, rules: Rules) -> None:
        """Show every series that these rules can count."""
        for policy in rules.awake:
            for name, *labels in _series(policy):
                self.add(name, policy.name, policy.mode.value, *labels, by=0)

    def samples(self) -> Iterator[Sample]:
        """The samples of this server, without its name."""
        for (name, labels), count in self.counts.copy().items():
            yield name, labels, count
        yield "cycle_seconds", (), self.cycles
        yield "lateness_seconds", (), self.lateness


def _series(policy: Policy) -> Iterator[tuple[str, ...]]:
    yield ("safety_limit_trips_total",)
    if policy.mode is Mode.DRY_RUN:
        yield "outcomes_total", _outcome_label(Result.REHEARSED)
        for fate in Fate:
            yield "dry_run_outcomes_total", fate.value
        return
    yield ("refill_guard_pauses_total",)
    other_action = Result.TERMINATED if policy.action is Action.CANCEL else Result.CANCELLED
    for result in Result:
        if result not in {other_action, Result.REHEARSED}:
            yield "outcomes_total", _outcome_label(result)


def _outcome_label(result: Result) -> str:
    return "dry-run" if result is Result.REHEARSED else result.value


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
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_TABLE_FAILURES, 0)))

    @property
    def lag_seconds(self) -> float:
        """The age of the oldest entry that is not in the table; 0 if there is none."""
        return 0.0 if self.oldest is None else max(time.time() - self.oldest, 0.0)

    def arrived(self, entries: int) -> None:
        """Count entries that the table took."""
        self.entries += entries
        self.last_success = time.time()

    def samples(self) -> Iterator[Sample]:
        """The samples of the copy."""
        yield "audit_table_connected", (), float(self.connected)
        yield "audit_table_lag_seconds", (), self.lag_seconds
        yield "audit_table_lag_bytes", (), self.waiting
        yield "audit_table_last_success_timestamp_seconds", (), self.last_success
        yield "audit_table_entries_total", (), self.entries
        for kind, count in self.failures.copy().items():
            yield "audit_table_failures_total", (kind,), count


class Metrics:
    """All metrics of one process."""

    def __init__(self, version: str) -> None:
        self.servers: dict[str, ServerGauges] = {}
        self.reload = ReloadGauges()
        self.audit_table: AuditTableGauges | None = None
        self.notifications = Counter[tuple[str, str]]()
        """By hook and result: `sent` and `failed` messages, `dropped` lines."""
        self._counters: dict[str, ServerCounters] = {}
        self._version = version
        self._started = time.time()
        self._in_force: tuple[str, float] | None = None

    def put_in_force(self, *, digest: str, interval_seconds: float) -> None:
        """Show these settings."""
        self._in_force = digest, interval_seconds

    def server(self, name: str) -> ServerGauges:
        """New gauges for a server, in place of older ones; its counters go on."""
        gauges = self.servers[name] = ServerGauges()
        self._counters.setdefault(name, ServerCounters())
        return gauges

    def forget(self, name: str) -> None:
        """Remove this server."""
        self.servers.pop(name, None)
        self._counters.pop(name, None)

    def of(self, server: str) -> ServerCounters:
        """The counters of this server; one that was removed counts where no scrape sees it."""
        return self._counters.get(server) or ServerCounters()

    def use_rules(self, server: str, rules: Rules) -> None:
        """Show at zero what these rules can count."""
        self.of(server).start_at_zero(rules)

    def clock_stepped(self, server: str) -> None:
        """Count a clock step that no cycle noticed."""
        self.of(server).add("clock_steps_total")

    def cycle(
        self,
        server: str,
        *,
        gauges: ServerGauges,
        plan: Plan,
        settled: Iterable[tuple[Reap, Outcome]],
        took: float,
        clock_stepped: bool = False,
    ) -> None:
        """Count a cycle; the gauges are still those of the previous one."""
        settled = tuple(settled)
        counters = self.of(server)
        counters.cycles.observe(took)
        counters.add("clock_steps_total", by=int(clock_stepped))
        for trip in plan.brakes:
            counters.add("safety_limit_trips_total", trip.policy.name, trip.policy.mode.value)
        for reap, outcome in settled:
            result = _outcome_label(outcome.result)
            counters.add("outcomes_total", reap.policy.name, reap.mode.value, result)
        since = None if clock_stepped else gauges.watched_since
        for late in lateness(settled, before=gauges.plan, watched_since=since):
            counters.lateness.observe(late)

    def dry_run_outcome(self, server: str, policy: Policy, fate: Fate) -> None:
        """Count what a session did after its dry run."""
        self.of(server).add("dry_run_outcomes_total", policy.name, policy.mode.value, fate.value)

    def refill_guarded(self, server: str, policy: Policy) -> None:
        """Count a pool that the refill guard pauses from now on."""
        self.of(server).add("refill_guard_pauses_total", policy.name, policy.mode.value)

    def failed(self, server: str, kind: str) -> None:
        """Count a failure: `unreachable`, `denied`, `cycle` or `audit_log`."""
        self.of(server).add("failures_total", kind)

    def exposition(self, accept: str = "") -> MetricsPage:
        """The page for a scraper; it may be called in a thread."""
        return expose(self._samples(), accept)

    def _samples(self) -> Iterator[Sample]:
        yield "build_info", (self._version,), 1
        yield "start_timestamp_seconds", (), self._started
        if self._in_force:
            digest, interval_seconds = self._in_force
            yield "policy_file_info", (digest,), 1
            yield "interval_seconds", (), interval_seconds
        yield "reload_success", (), float(self.reload.succeeded)
        yield "reload_last_success_timestamp_seconds", (), self.reload.last_success
        for (hook, result), count in self.notifications.copy().items():
            if result == "dropped":
                yield "notification_lines_dropped_total", (hook,), count
            else:
                yield "notifications_total", (hook, result), count
        if self.audit_table:
            yield from self.audit_table.samples()
        for server, gauges in self.servers.copy().items():
            for name, labels, value in gauges.samples(self.of(server).labels):
                yield name, (server, *labels), value
        for server, counters in self._counters.copy().items():
            for name, labels, value in counters.samples():
                yield name, (server, *labels), value
