"""Reports what happens at a server: to the log, the metrics, the webhooks, the totals and the status page."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.config import Occasion
from reaper.insight.dryrun.outcomes import DryRunOutcome, ObservedOutcome
from reaper.policy.plan import Candidate, Outcome, Result
from reaper.policy.refill_guard import PausedGroup
from reaper.policy.rules import Mode, Rules
from reaper.policy.session import session_words
from reaper.policy.time import Duration, Timestamp, isoformat, seconds, since, words
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
"""The outcome of a safety limit among the recent events of the page."""


class RecentEvents:
    """The last few outcomes, and safety limits that were exceeded, for the status page."""

    def __init__(self) -> None:
        # Bounded: a service may run for a year.
        self._recent_events = deque[RecentEvent](maxlen=_RECENT_EVENTS)

    def add(self, server: str, cycle: Cycle) -> None:
        """Add the events of a cycle."""
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
        # Only the last ones: a cycle with thousands of outcomes would build events that are dropped at once.
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
        """Return the last events, the newest first."""
        return tuple(self._recent_events)[: -most - 1 : -1]


class ChainHeadLog:
    """Logs the head of the hash chain of each audit file, each head once."""

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
    """Counts over all cycles of one server."""

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
        """The number of sessions with each outcome, over all policies."""
        total = Counter[str]()
        for (_, result), count in self.results.items():
            total[result.value] += count
        return dict(total)


class Reporter:
    """Reports the events of one server; a problem that lasts is logged each time and notified once."""

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
        self._last_connect_error: str | None = None
        self._last_failure: str | None = None
        self._last_history_failure: str | None = None
        self._had_unreadable = False
        self.totals = RunTotals()

    def connected(self, at: OpenConnection) -> None:
        """Report a new connection and what its probe found."""
        self._metrics.connect()
        self._last_connect_error = None
        warn(at, self._log)
        slots = at.probe.max_connections
        self._log.info(events.SERVER_CONNECTED, at=at.connection.where, postgres=at.probe.major, slots=slots)

    def use_rules(self, rules: Rules) -> None:
        """Show these rules in the metrics from now on."""
        self._metrics.use_rules(rules)

    def disconnected(self) -> None:
        """Note that there is no connection any more, and no lead either."""
        self._metrics.disconnect()
        # After a failover another reaper may lead, or the same one at another server: report it again.
        self._last_holder = None

    def leads(self, another: Holder | None) -> None:
        """Report that this reaper leads, and a second leader that holds the lock in another database."""
        self._metrics.leads = True
        self._log.info(events.LEADS)
        if another:
            hint = "let all reapers of a server connect to the same database"
            why = f"another reaper leads this server through database {another.database!r}: pid {another.pid}"
            self._log.warning(events.LEADS_TWICE, why=why, hint=hint)

    def clock_stepped(self, by: Duration) -> None:
        """Report a jump of the server's clock that no cycle noticed: without a connection, or on standby."""
        self._metrics.count("clock_steps_total")
        self._log.warning(events.CLOCK_STEPPED, by=words(by), so="ages from before count from now on")

    def stands_by(self, holder: Holder | None) -> None:
        """Report that another session holds the lock, once per holder."""
        why = str(holder or "another reaper leads")
        if why == self._last_holder:
            return
        self._last_holder = why
        # A foreign session on the lock would block every reaper for as long as it exists.
        if holder is None or holder.ours:
            self._log.info(events.STANDS_BY, why=why)
        else:
            self._log.error(events.STANDS_BY, why=why)
            self._notify(Occasion.FAILURES, why)

    def lost(self, why: str, *, refused: bool, retry: str) -> None:
        """Report that the server is unreachable, was lost, or denies access."""
        self._metrics.denied = refused
        state = "denied" if refused else "unreachable"
        self._metrics.count("failures_total", state)
        self._log.error(events.SERVER_DENIED if refused else events.SERVER_UNREACHABLE, why=why, retry=retry)
        if why != self._last_connect_error:
            self._last_connect_error = why
            self._notify(Occasion.FAILURES, f"{state}: {why}")

    def failed(self, error: Exception) -> None:
        """Report a cycle that failed; the next one follows."""
        kind, event = "cycle", events.CYCLE_FAILED
        if isinstance(error, AuditLogFailed):
            kind, event = "audit_log", events.AUDIT_FAILED
        self.totals.failures += 1
        self._metrics.count("failures_total", kind)
        self._log.error(event, why=str(error))
        self._notify_failure(error)

    def history_failed(self, why: str) -> None:
        """Report that a history snapshot could not be taken or written; the cycles go on."""
        self._log.error(events.HISTORY_FAILED, why=why)
        if why != self._last_history_failure:
            self._last_history_failure = why
            self._notify(Occasion.FAILURES, why)

    def history_resumed(self) -> None:
        """Report that history snapshots are written again."""
        self._last_history_failure = None
        self._log.info(events.HISTORY_RESUMED)

    def cycled(self, cycle: Cycle, *, took: float) -> None:
        """Report a finished cycle."""
        self.totals.add(cycle)
        self._recent_events.add(self._server, cycle)
        clock_stepped = cycle.clock_step is not None
        self._metrics.cycle(cycle.plan, cycle.settled, took=took, clock_stepped=clock_stepped)
        if cycle.audit_log_failed:
            self._metrics.count("failures_total", "audit_log")
            self._notify_failure(cycle.audit_log_failed)
        else:
            self._metrics.succeed(cycle.snapshot, cycle.plan, clock_stepped=clock_stepped)
            self._last_failure = None
        report(cycle, self._log)
        self._notify_cycle(cycle)

    def dry_run_outcomes(self, outcomes: Iterable[ObservedOutcome]) -> None:
        """Report what happened to sessions after their dry run."""
        for one in outcomes:
            candidate = one.watched.candidate
            policy = candidate.policy
            self._metrics.count("dry_run_outcomes_total", policy.name, policy.mode.value, one.outcome.value)
            # A session that was used again would have been missed: an operator must see it.
            missed = one.outcome is DryRunOutcome.USED_AGAIN
            log: Callable[..., None] = self._log.info if missed else self._log.debug
            log(
                events.DRY_RUN_OUTCOME,
                policy=candidate.policy.name,
                outcome=one.outcome.value,
                session=f"pid {one.watched.id.pid} {session_words(candidate.session.identity)}",
                why=one.reason,
            )

    def refill_guarded(self, groups: Iterable[PausedGroup]) -> None:
        """Report the groups that the refill guard pauses from now on."""
        for one in groups:
            policy, session = one.group.policy, session_words(one.group.identity)
            self._metrics.count("refill_guard_pauses_total", policy, Mode.ENFORCE.value)
            self._log.warning(events.REFILL_GUARDED, policy=policy, session=session, why=one.reason)
            self._notify(Occasion.REFILL_GUARD, f"{session}: {one.reason} ({policy})")

    def _notify_cycle(self, cycle: Cycle) -> None:
        for candidate, outcome in cycle.settled:
            if outcome.result in _NOTIFIED:
                session = f"pid {candidate.session.id.pid} {session_words(candidate.session.identity)}"
                text = f"{outcome.result.value} {session}: {candidate.reason} ({candidate.policy.name})"
                self._notify(Occasion.TERMINATIONS, text)
        for trip in cycle.new_trips:
            self._notify(Occasion.SAFETY_LIMIT, f"{trip.policy.name}: {trip.reason}")
        # Once, when it begins: the right is missing until an administrator grants it.
        unreadable = cycle.snapshot.unreadable
        if unreadable and not self._had_unreadable:
            self._notify(Occasion.UNREADABLE, f"{unreadable} sessions hide their state and are skipped")
        self._had_unreadable = bool(unreadable)

    def _notify_failure(self, error: Exception) -> None:
        """Notify once per error; the same error again only after a cycle that succeeded."""
        if str(error) != self._last_failure:
            self._last_failure = str(error)
            self._notify(Occasion.FAILURES, str(error))

    def _notify(self, occasion: Occasion, text: str) -> None:
        self._notifier.notify(occasion.value, self._server, text)


_PROBLEMS: Final = {Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}
_UNTOUCHED: Final = {Result.CHANGED, Result.GONE, Result.WITHDRAWN}
_NOTIFIED: Final = {Result.TERMINATED, Result.CANCELLED, Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}


def warn(at: OpenConnection, log: Log) -> None:
    """Log the warnings that the probe of a server found, each with its fix."""
    for found in at.findings:
        if found.level is Level.WARNING:
            log.warning(events.SERVER_FINDING, finding=found.finding, hint=found.fix)


def report(cycle: Cycle, log: Log) -> None:
    """Log what a cycle did; a cycle without outcomes is logged at level debug."""
    if cycle.clock_step is not None:
        so = "no session is terminated in this cycle"
        log.warning(events.CLOCK_STEPPED, by=words(cycle.clock_step), so=so)
    # New ones only: a limit that stays exceeded would fill the log at every cycle.
    for trip in cycle.new_trips:
        policy = trip.policy
        log.error(events.SAFETY_LIMIT_TRIPPED, policy=policy.name, mode=policy.mode.value, why=trip.reason)
    if unreadable := cycle.snapshot.unreadable:
        log.warning(events.SERVER_UNREADABLE, unreadable=unreadable, hint="GRANT pg_read_all_stats")
    if cycle.audit_log_failed:
        log.error(events.AUDIT_FAILED, why=str(cycle.audit_log_failed))
    for candidate, outcome in cycle.settled:
        _log_outcome(candidate, outcome, cycle.snapshot.at, log)
    write: Callable[..., None] = log.info if cycle.settled else log.debug
    event = events.CYCLE_ACTED if cycle.settled else events.CYCLE_QUIET
    slots = cycle.snapshot.slots
    counts = {result.value: count for result, count in cycle.results.items()}
    # With the prefilter these are only the sessions that could be due, not all of the server.
    observed = len(cycle.snapshot.sessions)
    write(
        event,
        cycle=int(cycle.name),
        **counts,
        slots_used=slots.used,
        slots_usable=slots.usable,
        observed=observed,
    )


def _log_outcome(candidate: Candidate, outcome: Outcome, at: Timestamp, log: Log) -> None:
    """Log one session and the age that it reached; at level warning if the result is a problem."""
    session, age = candidate.session, candidate.policy.match.decisive(candidate.session)
    write: Callable[..., None] = log.info
    if outcome.result in _PROBLEMS:
        write = log.warning
    elif outcome.result in _UNTOUCHED:
        write = log.debug
    reached = since(age.began, at) if age else None
    write(
        events.SESSION_OUTCOME,
        outcome=outcome.result.value,
        policy=candidate.policy.name,
        pid=session.id.pid,
        role=session.identity.role,
        database=session.identity.database,
        application=session.identity.application,
        client=session.identity.client,
        criterion=age.key if age else None,
        age_s=seconds(reached) if reached is not None else None,
        limit_s=seconds(age.limit) if age else None,
        detail=outcome.detail,
    )
