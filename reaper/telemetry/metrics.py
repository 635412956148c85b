"""What Prometheus is told.

Counters and histograms grow with every cycle. Gauges are worked out when they are asked for, from the last
snapshot of each server: a server that has left by reload leaves no stale number behind.
"""

import time
from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition
from prometheus_client.registry import Collector

from reaper.policy.session import IDLE, Snapshot
from reaper.policy.spans import seconds, since
from reaper.policy.verdict import Outcome, Plan, Reap, Spare

TOP_APPLICATIONS: Final = 10
"""So many applications have a label of their own; the rest, whatever they call themselves, is `other`."""

_CYCLE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LATENESS_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "build_info": ("The version that runs", ("version",)),
    "reload_success": ("Whether the last reload of the policy file succeeded", ()),
    "reload_last_success_timestamp_seconds": ("When a reload last succeeded", ()),
    "connected": ("Whether there is a connection", ("server",)),
    "leader": ("Whether this reaper acts here", ("server",)),
    "last_success_timestamp_seconds": ("When a cycle last ended well", ("server",)),
    "slots_max": ("All connection slots", ("server",)),
    "slots_reserved": ("Slots that ordinary roles cannot use", ("server",)),
    "slots_used": ("Slots that client sessions use", ("server",)),
    "sessions": ("Sessions by state and application", ("server", "state", "application")),
    "unreadable_sessions": ("Sessions that hide their state from us", ("server",)),
    "oldest_idle_seconds": ("The age of the longest idle session", ("server",)),
    "oldest_transaction_seconds": ("The age of the oldest open transaction", ("server",)),
    "candidates": ("Sessions that a policy condemns now, before restraints", ("server", "policy", "mode")),
    "spared": ("Sessions that a policy matches and that live, by what spared them", ("server", "by")),
}

_Number = tuple[str, tuple[str, ...], float]


@dataclass(slots=True)
class ServerGauges:
    """What is known of one server now."""

    connected: bool = False
    leads: bool = False
    last_success: float = 0.0
    snapshot: Snapshot | None = None
    plan: Plan | None = None

    def succeed(self, snapshot: Snapshot, plan: Plan) -> None:
        """A cycle has ended well."""
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
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(self.servers, self.reload, version))
        self._outcomes = self._counter(
            "outcomes", "What became of condemned sessions", "policy", "mode", "outcome"
        )
        self._brakes = self._counter(
            "brake_trips", "Plans that took too many and were not carried out", "policy", "mode"
        )
        self._failures = self._counter("failures", "Cycles and connections that failed", "kind")
        self._cycles = self._histogram("cycle_seconds", "How long a cycle takes", _CYCLE_BUCKETS)
        self._lateness = self._histogram(
            "lateness_seconds", "Signal minus deadline of terminated sessions", _LATENESS_BUCKETS
        )

    def server(self, name: str) -> ServerGauges:
        """New gauges for a server, shown from now on in place of older ones."""
        gauges = self.servers[name] = ServerGauges()
        return gauges

    def forget(self, name: str) -> None:
        """Show this server no longer."""
        self.servers.pop(name, None)

    def cycle(
        self,
        server: str,
        *,
        plan: Plan,
        settled: Iterable[tuple[Reap, Outcome]],
        took: float,
    ) -> None:
        """Count a cycle that has ended well."""
        self._cycles.labels(server).observe(took)
        for trip in plan.brakes:
            self._brakes.labels(server, trip.policy.name, trip.policy.mode.value).inc()
        for reap, outcome in settled:
            self._outcomes.labels(server, reap.policy.name, reap.mode.value, outcome.result.value).inc()
            due = reap.policy.match.due(reap.session)
            if due is not None and outcome.at is not None:
                self._lateness.labels(server).observe(max(outcome.at - due, 0) / 1_000_000)

    def failed(self, server: str, kind: str) -> None:
        """Count what went wrong: `connect`, `lost`, `cycle` or `record`."""
        self._failures.labels(server, kind).inc()

    def exposition(self) -> tuple[bytes, str]:
        """The page for the scraper, and its content type."""
        page: bytes = exposition.generate_latest(self._registry)  # type: ignore[no-untyped-call]
        return page, exposition.CONTENT_TYPE_LATEST

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"reaper_{name}", told, ("server", *labels), registry=self._registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"reaper_{name}", told, ("server",), buckets=buckets, registry=self._registry)


class _Gauges(Collector):
    def __init__(self, servers: Mapping[str, ServerGauges], reload: ReloadGauges, version: str) -> None:
        self._servers = servers
        self._reload = reload
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Work every gauge out of what is known now."""
        families = {
            name: GaugeMetricFamily(f"reaper_{name}", told, labels=labels)
            for name, (told, labels) in GAUGES.items()
        }
        for name, labels, value in self._numbers():
            families[name].add_metric(labels, value)
        yield from families.values()

    def _numbers(self) -> Iterator[_Number]:
        yield "build_info", (self._version,), 1
        yield "reload_success", (), float(self._reload.succeeded)
        yield "reload_last_success_timestamp_seconds", (), self._reload.last_success
        for server, gauges in self._servers.items():
            yield "connected", (server,), float(gauges.connected)
            yield "leader", (server,), float(gauges.leads)
            yield "last_success_timestamp_seconds", (server,), gauges.last_success
            if gauges.snapshot and gauges.plan:
                for name, labels, value in _of_cycle(gauges.snapshot, gauges.plan):
                    yield name, (server, *labels), value


def _of_cycle(snapshot: Snapshot, plan: Plan) -> Iterator[_Number]:
    yield "slots_max", (), snapshot.slots.total
    yield "slots_reserved", (), snapshot.slots.reserved
    yield "slots_used", (), snapshot.slots.used
    yield "unreadable_sessions", (), snapshot.unreadable
    idle = [since(s.state_change, snapshot.at) for s in snapshot.sessions if s.state == IDLE]
    yield "oldest_idle_seconds", (), max((seconds(age) for age in idle if age is not None), default=0.0)
    open_since = [since(s.xact_start, snapshot.at) for s in snapshot.sessions]
    yield (
        "oldest_transaction_seconds",
        (),
        max((seconds(a) for a in open_since if a is not None), default=0.0),
    )
    for labels, count in _by_state_and_application(snapshot).items():
        yield "sessions", labels, count
    condemned = Count((r.policy.name, r.mode.value) for r in (*plan.reaps, *plan.rehearsals))
    restrained = [spare for spare in plan.spares if spare.policy]
    condemned.update(
        (s.policy.name, s.policy.mode.value) for s in restrained if s.policy and s.by in _RESTRAINTS
    )
    for labels, count in condemned.items():
        yield "candidates", labels, count
    for by, count in Count(map(_spared_by, restrained)).items():
        yield "spared", (by,), count


_RESTRAINTS: Final = frozenset({"keep", "cap", "brake", "first-sighting", "pace", "signalled"})


def _spared_by(spare: Spare) -> str:
    return f"protection {spare.protection}" if spare.protection else spare.by.value


def _by_state_and_application(snapshot: Snapshot) -> Count[tuple[str, str]]:
    named = Count(session.identity.application or "" for session in snapshot.sessions)
    top = {name for name, _ in named.most_common(TOP_APPLICATIONS)}
    counts = Count[tuple[str, str]]()
    for session in snapshot.sessions:
        name = session.identity.application or ""
        counts[session.state or "unknown", name if name in top else "other"] += 1
    return counts
