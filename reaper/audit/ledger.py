"""The ledger: intents on disk before the first signal, outcomes after each, in every sink or not at all."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count

from reaper.audit.events import (
    COUNTERS,
    DRY_RUN_OUTCOME,
    EVENTS,
    GROUP_PAUSED,
    INTENT,
    OPTIONAL,
    OUTCOME,
    SAFETY_LIMIT,
    STAMPED,
    Event,
)
from reaper.audit.sinks import AuditLogFailed, ChainHead, Clock, RetryingSink, Sink
from reaper.insight.dryrun.outcomes import ObservedOutcome
from reaper.policy.plan import Candidate, Outcome, Result, SafetyLimitTrip
from reaper.policy.refill_guard import PausedGroup
from reaper.policy.rules import Action, Mode
from reaper.policy.session import Snapshot
from reaper.policy.time import Timestamp, isoformat, seconds, since


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """The reaper that writes an event, its server and its policy file."""

    server: str
    rules: str
    """The digest of the policy file."""
    by: str
    """The role of the reaper's connection."""
    version: str
    host: str
    dry_run: bool
    """Every policy is a dry run, whatever its mode."""

    def fields(self, cycle: str) -> dict[str, object]:
        """The fields of every event of a cycle."""
        return {"cycle": cycle, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An intent that is in the audit log, with the fields that its outcome repeats."""

    id: str
    candidate: Candidate
    fields: Mapping[str, object] = field(repr=False)


class Ledger:
    """Writes every event to every sink; the cycles of several servers share it on one event loop."""

    def __init__(self, sinks: Sequence[Sink], *, clock: Clock, run: str) -> None:
        # The promise "the audit log comes first" cannot be kept without one.
        if not sinks:
            message = "a ledger without a sink would let terminations go unlogged"
            raise ValueError(message)
        self._sinks = [RetryingSink(sink, clock=clock, run=run) for sink in sinks]
        self._clock = clock
        self._numbers = count(1)
        self.run = run
        """The id of this run of the reaper."""

    def open(self) -> None:
        """Open every sink, so that a failure is found at the start and not at the first termination."""
        self._each(lambda sink: sink.write(durable=True))

    def intend(
        self, author: Author, cycle: str, snapshot: Snapshot, candidates: Sequence[Candidate]
    ) -> list[Intent]:
        """Write intents durably; after AuditLogFailed nothing may be terminated."""
        if not candidates:
            return []
        for sink in self._sinks:
            # Pending events first and alone, so that they cannot pile up while a disk is full.
            sink.write()
        intents = list[Intent]()
        for candidate in candidates:
            name = f"{self.run}/{next(self._numbers)}"
            fields = {"intent": name, **author.fields(cycle), **session_fields(candidate, snapshot.at)}
            intents.append(Intent(id=name, candidate=candidate, fields=fields))
        events = [self._event(INTENT, intent.fields) for intent in intents]
        for number, sink in enumerate(self._sinks, start=1):
            try:
                sink.write(events, durable=True)
            except AuditLogFailed:
                self._withdraw(intents, self._sinks[:number])
                raise
        return intents

    def log_outcomes(self, outcomes: Sequence[tuple[Intent, Outcome]]) -> None:
        """Write outcomes; a sink that fails gets them before anything else later."""
        self._write(OUTCOME, [_outcome_fields(intent.fields, outcome) for intent, outcome in outcomes])

    def log_unknown_outcomes(self, intents: Sequence[Event], detail: str) -> None:
        """Write durably that the outcome of these intents of an earlier run is unknown."""
        unknown = Outcome(result=Result.UNKNOWN, detail=detail)
        # Durable: otherwise a second crash would leave the same intents open again.
        fields = [_outcome_fields(_intent_fields(intent), unknown) for intent in intents]
        self._write(OUTCOME, fields, durable=True)

    def log_safety_limit(
        self, author: Author, cycle: str, snapshot: Snapshot, trips: Sequence[SafetyLimitTrip]
    ) -> None:
        """Write durably which policies terminate nothing because of their safety limit."""
        fields = [{**author.fields(cycle), **_safety_limit_fields(trip, snapshot.at)} for trip in trips]
        self._write(SAFETY_LIMIT, fields, durable=True)

    def log_dry_run_outcomes(self, author: Author, became: Sequence[ObservedOutcome]) -> None:
        """Write what happened to sessions after their dry run; a sink that fails gets it later."""
        fields = [{**author.fields(each.watched.cycle), **_dry_run_outcome_fields(each)} for each in became]
        self._write(DRY_RUN_OUTCOME, fields)

    def log_refill_guard(self, author: Author, cycle: str, pools: Sequence[PausedGroup]) -> None:
        """Write which pools a policy does not terminate for a while; a sink that fails gets it later."""
        self._write(GROUP_PAUSED, [{**author.fields(cycle), **_refill_guard_fields(each)} for each in pools])

    def log_counters(self, author: Author, counters: Mapping[str, object]) -> None:
        """Write durably the server's own count of terminations."""
        about = {"server": author.server, "by": author.by, "version": author.version, "host": author.host}
        self._write(COUNTERS, [{**about, **counters}], durable=True)

    def heads(self) -> Sequence[ChainHead]:
        """The end of each sink's chain."""
        return [head for sink in self._sinks if (head := sink.head)]

    def flush(self) -> None:
        """Make all outcomes durable."""
        self._each(RetryingSink.flush)

    def reopen(self) -> None:
        """Close every file, because logrotate has renamed it."""
        self._each(RetryingSink.reopen)

    def close(self) -> None:
        """Make the rest durable, and close for good."""
        self._each(RetryingSink.close)

    def _withdraw(self, intents: Sequence[Intent], sinks: Sequence[RetryingSink]) -> None:
        # Without this, the next run would log `unknown` for sessions that were certainly not touched. The
        # sink that failed may hold some intents, and gets the withdrawal later; those after it hold none.
        outcome = Outcome(result=Result.WITHDRAWN, detail="the audit log could not be written")
        events = [self._event(OUTCOME, _outcome_fields(intent.fields, outcome)) for intent in intents]
        for sink in sinks:
            with suppress(AuditLogFailed):
                sink.deliver(events, durable=True)

    def _write(self, name: str, fields: Sequence[Mapping[str, object]], *, durable: bool = False) -> None:
        events = [self._event(name, each) for each in fields]
        # What must be durable is written again by the caller after a failure; the rest waits in the sink.
        if events and durable:
            self._each(lambda sink: sink.write(events, durable=True))
        elif events:
            self._each(lambda sink: sink.deliver(events))

    def _each(self, act: Callable[[RetryingSink], None]) -> None:
        """Call it for every sink, even after a failure; then raise the first failure."""
        # A full disk must not keep the outcome from the other sinks.
        failures = []
        for sink in self._sinks:
            try:
                act(sink)
            except AuditLogFailed as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _event(self, name: str, fields: Mapping[str, object]) -> Event:
        return Event(name=name, time=self._clock(), fields=fields)


def session_fields(candidate: Candidate, at: Timestamp) -> dict[str, object]:
    """The policy that matches a session, and the session as it was at that time."""
    session = candidate.session

    def age(then: Timestamp | None) -> float | None:
        span = since(then, at)
        return None if span is None else seconds(span)

    return {
        "policy": candidate.policy.name,
        "mode": candidate.mode,
        "action": candidate.action,
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        "client_port": session.client_port,
        "state": session.state,
        "state_change": isoformat(session.state_change),
        "query_start": isoformat(session.query_start),
        "xact_start": isoformat(session.xact_start),
        "idle_s": age(session.state_change),
        "transaction_s": age(session.xact_start),
        "connected_s": age(session.id.backend_start),
        "server_time": isoformat(at),
        **({} if session.query is None else {"query": session.query}),
        "reason": candidate.reason,
    }


def _outcome_fields(intended: Mapping[str, object], outcome: Outcome) -> dict[str, object]:
    checked, signalled = outcome.act or (None, None)
    return {
        **intended,
        "outcome": outcome.result,
        "detail": outcome.detail,
        "outcome_at": isoformat(outcome.at),
        "looked_again_at": isoformat(checked),
        "signalled_at": isoformat(signalled),
    }


def _dry_run_outcome_fields(became: ObservedOutcome) -> dict[str, object]:
    one = became.watched
    return {
        "intent": one.intent,
        "rules": one.rules,
        **session_fields(one.candidate, one.at),
        "dry_run_outcome": became.outcome,
        "detail": became.reason,
        "dry_run_outcome_at": isoformat(became.seen),
        "used_at": isoformat(became.used_at),
        "after_s": seconds(became.after),
        "unseen_s": seconds(became.unseen),
    }


def _refill_guard_fields(pool: PausedGroup) -> dict[str, object]:
    return {
        "policy": pool.group.policy,
        "mode": Mode.ENFORCE,  # only what was really terminated can be refilled
        "action": Action.TERMINATE,
        "server_time": isoformat(pool.at),
        "reason": pool.reason,
        **pool.group.identity._asdict(),
        "terminated": pool.terminated,
        "refilled": pool.refilled,
        "until": isoformat(pool.until),
    }


def _safety_limit_fields(trip: SafetyLimitTrip, at: Timestamp) -> dict[str, object]:
    return {
        "policy": trip.policy.name,
        "mode": trip.policy.mode,
        "action": trip.policy.action,
        "server_time": isoformat(at),
        "matched": trip.matched,
        "clients": trip.clients,
        "reason": trip.reason,
    }


def _intent_fields(intent: Event) -> dict[str, object]:
    """The fields of an intent that was read back, for its outcome."""
    # The file may have been edited: nothing but plain values is repeated.
    plain = {name: value for name, value in intent.fields.items() if isinstance(value, str | int | float)}
    names = [name for name in EVENTS[INTENT] if name not in STAMPED]
    return {name: plain.get(name) for name in names if name in intent.fields or name not in OPTIONAL}
