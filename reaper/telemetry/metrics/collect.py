"""Metrics of the service, as Prometheus scrapes them.

What grows is counted with every cycle. Gauges are worked out when they are asked for, from the last look at
each server; one whose connection was lost shows no slots and no sessions, for nobody knows them. A server
that leaves by reload takes everything with it, counters too. A policy that leaves keeps its counters until
the process ends: what it did a moment ago must not be lost between two scrapes.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.dryrun.outcomes import Fate
from reaper.policy.plan import Outcome, Plan, Reap, Result, Spared
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.session import SessionId, Snapshot
from reaper.policy.time import Instant, Span, seconds
from reaper.telemetry.metrics.exposition import CopyGauges, Page, Sample, expose
from reaper.telemetry.metrics.samples import Applications, ServerCounts, census, readings

_ENDED: Final = {Result.TERMINATED, Result.CANCELLED}


def lateness(
    settled: Iterable[tuple[Reap, Outcome]], *, before: Plan | None, watched_since: Instant | None
) -> Iterator[float]:
    """The seconds of each session that was ended; `before` is the plan of the cycle before."""
    if before is None or watched_since is None:
        return
    held: frozenset[SessionId] | None = None
    for reap, outcome in settled:
        due = _deadline(reap)
        if outcome.result not in _ENDED or outcome.at is None or due is None or due < watched_since:
            continue
        held = _held_back(before) if held is None else held
        if reap.session.id not in held:
            yield max(seconds(Span(outcome.at - due)), 0.0)


def _deadline(reap: Reap) -> Instant | None:
    match = reap.policy.match
    asks_for_more = match.blocking or match.holds_back_vacuum is not None
    return None if asks_for_more else match.due(reap.session)


def _held_back(plan: Plan) -> frozenset[SessionId]:
    return frozenset(
        spare.session.id for spare in plan.matched_spares if spare.by is not Spared.FIRST_SIGHTING
    )


@dataclass(slots=True)
class ServerGauges:
    """What is known of one server now."""

    connected: bool = False
    refused: bool = False
    leads: bool = False
    last_success: float = 0.0
    rules: Rules | None = None
    snapshot: Snapshot | None = None
    everybody: Snapshot | None = None
    """The last look that left nobody out: some leave out the young."""
    plan: Plan | None = None
    watched_since: Instant | None = None
    """When, by the server's clock, we began to look by these rules, and without a pause."""

    def connect(self) -> None:
        """There is a connection."""
        self.connected, self.refused = True, False

    def disconnect(self) -> None:
        """There is none any more: what was seen last is no longer so."""
        self.connected = self.leads = False
        self.snapshot = self.everybody = self.plan = self.watched_since = None

    def judge_by(self, rules: Rules) -> None:
        """From now on these rules hold."""
        if rules != self.rules:
            self.rules, self.watched_since = rules, None

    def succeed(self, snapshot: Snapshot, plan: Plan, *, clock_stepped: bool = False) -> None:
        """A cycle has ended well."""
        if clock_stepped or self.watched_since is None:
            self.watched_since = snapshot.at
        self.everybody = snapshot if snapshot.young is None else self.everybody
        self.snapshot, self.plan, self.last_success = snapshot, plan, time.time()


@dataclass(slots=True)
class ReloadGauges:
    """What became of the last reload."""

    succeeded: bool = True
    last_success: float = field(default_factory=time.time)

    def succeed(self) -> None:
        """A reload has put new settings in force, or found the old ones still good."""
        self.succeeded, self.last_success = True, time.time()

    def failed(self) -> None:
        """A reload was refused."""
        self.succeeded = False


class Metrics:
    """All metrics of one process."""

    def __init__(self, version: str) -> None:
        self.servers: dict[str, ServerGauges] = {}
        self.reload = ReloadGauges()
        self.notifications = Counter[tuple[str, str]]()
        """By hook and result: `sent` and `failed` messages, `dropped` lines."""
        self._counts: dict[str, ServerCounts] = {}
        self.copy: CopyGauges | None = None
        """Of the record's table, when there is one."""
        self._version = version
        self._began = time.time()
        self._in_force: tuple[str, float] | None = None

    def put_in_force(self, *, digest: str, interval_seconds: float) -> None:
        """These settings hold from now on."""
        self._in_force = digest, interval_seconds

    def server(self, name: str) -> ServerGauges:
        """New gauges for a server, shown from now on in place of older ones; its counters go on."""
        gauges = self.servers[name] = ServerGauges()
        self._counts.setdefault(name, ServerCounts())
        return gauges

    def forget(self, name: str) -> None:
        """Show this server no longer."""
        self.servers.pop(name, None)
        self._counts.pop(name, None)

    def expect(self, server: str, rules: Rules) -> None:
        """Show at zero what these rules can come to."""
        self._of(server).expect(rules)

    def clock_stepped(self, server: str) -> None:
        """Count a jump that no cycle has seen."""
        self._of(server).clock_steps += 1

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
        """Count a cycle that has ended well; the gauges still show the one before."""
        settled = tuple(settled)
        counts = self._of(server)
        counts.cycles.observe(took)
        counts.clock_steps += clock_stepped
        counts.brakes.update((trip.policy.name, trip.policy.mode.value) for trip in plan.brakes)
        counts.outcomes.update((r.policy.name, r.mode.value, outcome.result.value) for r, outcome in settled)
        since = None if clock_stepped else gauges.watched_since
        for late in lateness(settled, before=gauges.plan, watched_since=since):
            counts.lateness.observe(late)

    def fated(self, server: str, policy: Policy, fate: Fate) -> None:
        """Count what became of a session after its rehearsal."""
        self._of(server).fates[policy.name, policy.mode.value, fate.value] += 1

    def left_alone(self, server: str, policy: Policy) -> None:
        """Count a group that a policy leaves alone from now on, for it refills at once."""
        self._of(server).churn[policy.name, policy.mode.value] += 1

    def failed(self, server: str, kind: str) -> None:
        """Count what went wrong: `away`, `refused`, `cycle` or `record`."""
        self._of(server).failures[kind] += 1

    def exposition(self, accept: str = "") -> Page:
        """The page for the scraper; it may be asked for in a thread."""
        return expose(self._samples(), accept)

    def _of(self, server: str) -> ServerCounts:
        # The last cycle of a server that has left counts into a page that nobody sees.
        return self._counts.get(server) or ServerCounts()

    def _samples(self) -> Iterator[Sample]:
        yield "build_info", (self._version,), 1
        yield "start_timestamp_seconds", (), self._began
        if self._in_force:
            digest, interval_seconds = self._in_force
            yield "rules_info", (digest,), 1
            yield "interval_seconds", (), interval_seconds
        yield "reload_success", (), float(self.reload.succeeded)
        yield "reload_last_success_timestamp_seconds", (), self.reload.last_success
        for (hook, result), count in self.notifications.copy().items():
            if result == "dropped":
                yield "notification_lines_dropped_total", (hook,), count
            else:
                yield "notifications_total", (hook, result), count
        if self.copy:
            yield from self.copy.samples()
        # Copies, here and below: the service goes on while a page is made.
        for server, gauges in self.servers.copy().items():
            for name, labels, value in _of_gauges(gauges, self._of(server).applications):
                yield name, (server, *labels), value
        for server, counts in self._counts.copy().items():
            for name, labels, counted in _of_counts(counts):
                yield name, (server, *labels), counted


def _of_gauges(
    gauges: ServerGauges, applications: Applications
) -> Iterator[tuple[str, tuple[str, ...], float]]:
    yield "connected", (), float(gauges.connected)
    yield "refused", (), float(gauges.refused)
    yield "leader", (), float(gauges.leads)
    yield "last_success_timestamp_seconds", (), gauges.last_success
    rules, snapshot, plan, everybody = gauges.rules, gauges.snapshot, gauges.plan, gauges.everybody
    if rules:
        for mode in Mode:
            yield "policies", (mode.value,), sum(policy.mode is mode for policy in rules.policies)
    if rules and snapshot and plan:
        yield from readings(snapshot, plan, rules)
    if everybody:
        now = time.monotonic()
        yield from census(everybody, admit=lambda names: applications.admit(names, now))


def _of_counts(counts: ServerCounts) -> Iterator[Sample]:
    for labels, count in counts.outcomes.copy().items():
        yield "outcomes_total", labels, count
    for (policy, mode), count in counts.brakes.copy().items():
        yield "brake_trips_total", (policy, mode), count
    for (policy, mode), count in counts.churn.copy().items():
        yield "churn_total", (policy, mode), count
    for labels, count in counts.fates.copy().items():
        yield "rehearsal_fates_total", labels, count
    for kind, count in counts.failures.copy().items():
        yield "failures_total", (kind,), count
    yield "clock_steps_total", (), counts.clock_steps
    yield "cycle_seconds", (), counts.cycles
    yield "lateness_seconds", (), counts.lateness
