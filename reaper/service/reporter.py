"""What one server's loop tells the world: the log, the metrics, the tally; each event once, in one place."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.config import Occasion
from reaper.insight.dryrun.outcomes import DryRunOutcome, ObservedOutcome
from reaper.policy.plan import Result
from reaper.policy.refill_guard import PausedGroup
from reaper.policy.rules import Rules
from reaper.policy.session import session_words
from reaper.policy.time import Duration, isoformat, words
from reaper.postgres.leadership import Holder
from reaper.postgres.preflight import Level
from reaper.service.connection import OpenConnection
from reaper.service.cycle import Cycle
from reaper.telemetry import events
from reaper.telemetry.http.views import RecentEvent
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.notify import Notifier

_RECENT_EVENTS: Final = 30
SAFETY_LIMIT: Final = "safety-limit"


class RecentEvents:
    """Remembers the last few outcomes and brakes."""

    def __init__(self) -> None:
        self._recent_events = deque[RecentEvent](maxlen=_RECENT_EVENTS)

    def add(self, server: str, cycle: Cycle) -> None:
        """A cycle has come to its end."""
        for trip in cycle.new_trips:
            self._recent_events.append(
                RecentEvent(
                    at=isoformat(cycle.snapshot.at),
                    server=server,
                    policy=trip.policy.name,
                    mode=trip.policy.mode.value,
                    outcome=SAFETY_LIMIT,
                    pid=None,
                    session=None,
                    reason=trip.reason,
                )
            )
        for candidate, outcome in cycle.settled[-_RECENT_EVENTS:]:
            self._recent_events.append(
                RecentEvent(
                    at=isoformat(outcome.at or cycle.snapshot.at),
                    server=server,
                    policy=candidate.policy.name,
                    mode=candidate.mode.value,
                    outcome=outcome.result.value,
                    pid=candidate.session.id.pid,
                    session=candidate.session.identity,
                    reason=candidate.reason,
                )
            )

    def latest(self, most: int) -> tuple[RecentEvent, ...]:
        """The last ones, the latest first."""
        return tuple(self._recent_events)[: -most - 1 : -1]


class ChainHeadLog:
    """Logs where the hash chain of each audit file stands, each head once."""

    def __init__(self, ledger: Ledger, log: Log) -> None:
        self._ledger = ledger
        self._log = log
        self._logged = dict[str, str]()

    def log_new(self) -> None:
        """Log the heads that have moved since the last call."""
        for file, digest in self._ledger.heads():
            if self._logged.get(file) != digest:
                self._logged[file] = digest
                self._log.info(events.AUDIT_HEAD, file=file, digest=digest)


@dataclass(slots=True)
class RunTotals:
    """Counts over all cycles of all servers."""

    cycles: int = 0
    failures: int = 0
    trips: int = 0
    results: Counter[tuple[str, Result]] = field(default_factory=Counter)
    """By policy and result."""

    def add(self, cycle: Cycle) -> None:
        """Count one cycle."""
        self.cycles += 1
        self.trips += len(cycle.plan.trips)
        self.results.update((candidate.policy.name, outcome.result) for candidate, outcome in cycle.settled)

    @property
    def by_result(self) -> dict[str, int]:
        """How often each outcome came about, over all policies."""
        total = Counter[str]()
        for (_, result), count in self.results.items():
            total[result.value] += count
        return dict(total)


class Reporter:
    """Tells what happens at one server."""

    def __init__(
        self,
        server: str,
        *,
        log: Log,
        metrics: Metrics,
        notifier: Notifier,
        recent_events: RecentEvents | None = None,
    ) -> None:
        self._server = server
        self._recent_events = recent_events or RecentEvents()
        self._notifier = notifier
        self._log = log.bind(server=server)
        self._metrics = metrics.server(server)
        self._last_holder: str | None = None
        self._last_trouble: str | None = None
        self._last_failure: str | None = None
        self._last_history_failure: str | None = None
        self._was_blind = False
        self.totals = RunTotals()

    def connected(self, at: OpenConnection) -> None:
        """There is a connection, and it was looked at."""
        self._metrics.connect()
        self._last_trouble = None
        warn(at, self._log)
        slots = f"{at.probe.max_connections} slots"
        self._log.info(events.SERVER_CONNECTED, at=at.link.where, postgres=at.probe.major, slots=slots)

    def judges_by(self, rules: Rules) -> None:
        """These rules hold from now on."""
        self._metrics.use_rules(rules)

    def disconnected(self) -> None:
        """There is none any more, and no lead either."""
        self._metrics.disconnect()
        self._last_holder = None

    def leads(self, another: Holder | None) -> None:
        """From now on this reaper acts here, maybe beside another that the lock did not meet."""
        self._metrics.leads = True
        self._log.info(events.LEADS)
        if another:
            mend = "let all reapers of a server connect to the same database"
            why = f"another reaper leads this server through database {another.database!r}: pid {another.pid}"
            self._log.warning(events.LEADS_TWICE, why=why, mend=mend)

    def clock_stepped(self, by: Duration) -> None:
        """The server's clock has jumped while no cycle looked: without a connection, or standing by."""
        self._metrics.clock_stepped()
        self._log.warning(events.CLOCK_STEPPED, by=words(by), so="ages from before count from now on")

    def stands_by(self, holder: Holder | None) -> None:
        """Report that another session holds the lock, once per holder."""
        said = str(holder or "another reaper leads")
        if said != self._last_holder:
            self._last_holder = said
            if holder is None or holder.ours:
                self._log.info(events.STANDS_BY, why=said)
            else:
                self._log.error(events.STANDS_BY, why=said)
                self._tell(Occasion.FAILURES, said)

    def lost(self, why: str, *, refused: bool, retry: str) -> None:
        """Report that the server is unreachable, was lost, or denies access."""
        self._metrics.denied = refused
        self._metrics.failed("denied" if refused else "unreachable")
        self._log.error(events.SERVER_DENIED if refused else events.SERVER_UNREACHABLE, why=why, retry=retry)
        if why != self._last_trouble:
            self._last_trouble = why
            self._tell(Occasion.FAILURES, f"{'refuses' if refused else 'is away'}: {why}")

    def failed(self, error: Exception) -> None:
        """A cycle failed; the next one follows."""
        kind, event = "cycle", events.CYCLE_FAILED
        if isinstance(error, AuditLogFailed):
            kind, event = "audit_log", events.AUDIT_FAILED
        self.totals.failures += 1
        self._metrics.failed(kind)
        self._log.error(event, why=str(error))
        self._tell_failure(error)

    def history_failed(self, why: str) -> None:
        """A look at everybody could not be taken or written; the cycles go on."""
        self._log.error(events.HISTORY_FAILED, why=why)
        if why != self._last_history_failure:
            self._last_history_failure = why
            self._tell(Occasion.FAILURES, why)

    def history_resumed(self) -> None:
        """The history goes on."""
        self._last_history_failure = None
        self._log.info(events.HISTORY_RESUMED)

    def cycled(self, cycle: Cycle, *, took: float) -> None:
        """A cycle has come to its end."""
        self.totals.add(cycle)
        self._recent_events.add(self._server, cycle)
        clock_stepped = cycle.clock_step is not None
        self._metrics.cycle(cycle.plan, cycle.settled, took=took, clock_stepped=clock_stepped)
        if cycle.audit_log_failed:
            self._metrics.failed("audit_log")
            self._tell_failure(cycle.audit_log_failed)
        else:
            self._metrics.succeed(cycle.snapshot, cycle.plan, clock_stepped=clock_stepped)
            self._last_failure = None
        report(cycle, self._log)
        self._notify(cycle)

    def dry_run_outcomes(self, became: Iterable[ObservedOutcome]) -> None:
        """Something has become of sessions after their rehearsal."""
        for one in became:
            candidate = one.watched.candidate
            self._metrics.dry_run_outcome(candidate.policy, one.outcome)
            say: Callable[..., None] = (
                self._log.info if one.outcome is DryRunOutcome.USED_AGAIN else self._log.debug
            )
            who = f"pid {one.watched.id.pid} {session_words(candidate.session.identity)}"
            say(
                events.DRY_RUN_OUTCOME,
                policy=candidate.policy.name,
                outcome=one.outcome.value,
                who=who,
                why=one.reason,
            )

    def leaves_alone(self, pools: Iterable[PausedGroup]) -> None:
        """Groups refill at once, and are left alone for a while."""
        for pool in pools:
            self._metrics.refill_guarded(pool.group.policy)
            who = session_words(pool.group.identity)
            self._log.warning(events.REFILL_GUARDED, policy=pool.group.policy, who=who, why=pool.reason)
            self._tell(Occasion.REFILL_GUARD, f"{who}: {pool.reason} ({pool.group.policy})")

    def _notify(self, cycle: Cycle) -> None:
        for candidate, outcome in cycle.settled:
            if outcome.result in _WORTH_TELLING:
                who = f"pid {candidate.session.id.pid} {session_words(candidate.session.identity)}"
                said = f"{outcome.result.value} {who}: {candidate.reason} ({candidate.policy.name})"
                self._tell(Occasion.TERMINATIONS, said)
        for trip in cycle.new_trips:
            self._tell(Occasion.SAFETY_LIMIT, f"{trip.policy.name}: {trip.reason}")
        blind = cycle.snapshot.unreadable
        if blind and not self._was_blind:
            self._tell(Occasion.UNREADABLE, f"{blind} sessions hide their state and are skipped")
        self._was_blind = bool(blind)

    def _tell_failure(self, error: Exception) -> None:
        """Once, and again when it is another one, or after a cycle that went well."""
        if str(error) != self._last_failure:
            self._last_failure = str(error)
            self._tell(Occasion.FAILURES, str(error))

    def _tell(self, occasion: Occasion, what: str) -> None:
        self._notifier.notify(occasion.value, self._server, what)


_WORTH_TELLING: Final = {Result.TERMINATED, Result.CANCELLED, Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}


def warn(at: OpenConnection, log: Log) -> None:
    """Say what the first look at a server has found that should not be so, each with its cure."""
    for found in at.findings:
        if found.level is Level.WARNING:
            log.warning(events.SERVER_FINDING, finding=found.finding, mend=found.fix)


def report(cycle: Cycle, log: Log) -> None:
    """Say what a cycle did; quiet cycles are quiet."""
    if cycle.clock_step is not None:
        log.warning(events.CLOCK_STEPPED, by=words(cycle.clock_step), so="nobody is touched in this cycle")
    for trip in cycle.new_trips:
        log.error(
            events.SAFETY_LIMIT_TRIPPED, policy=trip.policy.name, mode=trip.policy.mode.value, why=trip.reason
        )
    if cycle.snapshot.unreadable:
        log.warning(
            events.SERVER_UNREADABLE, unreadable=cycle.snapshot.unreadable, mend="GRANT pg_read_all_stats"
        )
    if cycle.audit_log_failed:
        log.error(events.AUDIT_FAILED, why=str(cycle.audit_log_failed))
    say: Callable[..., None] = log.info if cycle.settled else log.debug
    event = events.CYCLE_ACTED if cycle.settled else events.CYCLE_QUIET
    slots = cycle.snapshot.slots
    counts = {result.value: count for result, count in cycle.results.items()}
    # How many were looked at: all, or without those whom no policy can mean yet, or at all.
    looked_at = len(cycle.snapshot.sessions)
    say(event, cycle=cycle.name, **counts, slots=f"{slots.used}/{slots.total}", looked_at=looked_at)
