"""The ledger: intents on disk before the first signal, outcomes after each, in every sink or not at all."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from reaper.audit.events import (
    BRAKED,
    COUNTERS,
    EVENTS,
    FATE,
    INTENT,
    LEFT_ALONE,
    OPTIONAL,
    OUTCOME,
    STAMPED,
    Event,
)
from reaper.audit.sinks import AuditLogFailed, ChainHead, Clock, RetryingSink, Sink
from reaper.insight.dryrun.outcomes import Fated
from reaper.policy.plan import BrakeTrip, Outcome, Reap, Refilling, Result
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import Instant, isoformat, seconds, since


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """The reaper that writes an event, its server and its policy file."""

    version: str
    host: str
    by: str
    """The role of the reaper's connection."""
    server: str
    rules: str
    """The digest of the policy file."""
    dry_run: bool
    """Every policy is a dry run, whatever its mode."""

    def fields(self, cycle: str) -> dict[str, object]:
        """The fields of every event of a cycle."""
        return {
            "cycle": cycle,
            "server": self.server,
            "rules": self.rules,
            "by": self.by,
            "version": self.version,
            "host": self.host,
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An intent that is in the audit log, with the fields that its outcome repeats."""

    id: str
    reap: Reap
    fields: Mapping[str, object] = field(repr=False)


class Ledger:
    """Writes every event to every sink; the cycles of several servers share it on one event loop."""

    def __init__(self, sinks: Sequence[Sink], *, clock: Clock, run: str) -> None:
        if not sinks:
            message = "a ledger without a sink would let terminations go unlogged"
            raise ValueError(message)
        self._sinks = [RetryingSink(sink, clock=clock, run=run) for sink in sinks]
        self._clock = clock
        self._run = run
        self._numbers = count(1)

    @property
    def run(self) -> str:
        """The id of this run of the reaper."""
        return self._run

    def open(self) -> None:
        """Open every sink, so that a failure is found at the start and not at the first termination."""
        self._each(lambda sink: sink.write(durable=True))

    def intend(
        self, author: Author, cycle: str, snapshot: Snapshot, reaps: Sequence[Reap]
    ) -> Sequence[Intent]:
        """Write intents durably; after AuditLogFailed nothing may be terminated."""
        if not reaps:
            return ()
        for sink in self._sinks:
            # Pending events first and alone, so that they cannot pile up while a disk is full.
            sink.write()
        intents = [self._intent(author, cycle, snapshot, reap) for reap in reaps]
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
        events = [self._outcome(intent.fields, outcome) for intent, outcome in outcomes]
        self._each(lambda sink: sink.deliver(events))

    def log_unknown_outcomes(self, intents: Sequence[Event], detail: str) -> None:
        """Write durably that the outcome of these intents of an earlier run is unknown."""
        unknown = Outcome(result=Result.UNKNOWN, detail=detail)
        events = [self._outcome(_intent_fields(intent), unknown) for intent in intents]
        self._each(lambda sink: sink.write(events, durable=True))

    def log_safety_limit(
        self, author: Author, cycle: str, snapshot: Snapshot, trips: Sequence[BrakeTrip]
    ) -> None:
        """Write durably which policies terminate nothing because of their safety limit."""
        if not trips:
            return
        events = [
            self._event(BRAKED, {**author.fields(cycle), **_safety_limit_fields(trip, snapshot.at)})
            for trip in trips
        ]
        self._each(lambda sink: sink.write(events, durable=True))

    def log_dry_run_outcomes(self, author: Author, became: Sequence[Fated]) -> None:
        """Write what happened to sessions after their dry run, now or before anything else later."""
        self._deliver(
            FATE, [{**author.fields(each.watched.cycle), **_dry_run_outcome_fields(each)} for each in became]
        )

    def log_refill_guard(self, author: Author, cycle: str, pools: Sequence[Refilling]) -> None:
        """Write which groups a policy leaves alone from now on, now or before anything else later."""
        self._deliver(LEFT_ALONE, [{**author.fields(cycle), **_refill_guard_fields(each)} for each in pools])

    def log_counters(self, author: Author, counters: Mapping[str, object]) -> None:
        """Write durably the server's own count of terminations."""
        about = {"server": author.server, "by": author.by, "version": author.version, "host": author.host}
        event = self._event(COUNTERS, {**about, **counters})
        self._each(lambda sink: sink.write([event], durable=True))

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
        events = [self._outcome(intent.fields, outcome) for intent in intents]
        for sink in sinks:
            with suppress(AuditLogFailed):
                sink.deliver(events, durable=True)

    def _deliver(self, name: str, fields: Sequence[Mapping[str, object]]) -> None:
        if fields:
            events = [self._event(name, each) for each in fields]
            self._each(lambda sink: sink.deliver(events))

    def _each(self, act: Callable[[RetryingSink], None]) -> None:
        """Call it for every sink, even after a failure; then raise the first failure."""
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

    def _intent(self, author: Author, cycle: str, snapshot: Snapshot, reap: Reap) -> Intent:
        number = f"{self._run}/{next(self._numbers)}"
        fields = {"intent": number, **author.fields(cycle), **session_fields(reap, snapshot.at)}
        return Intent(id=number, reap=reap, fields=fields)

    def _outcome(self, intended: Mapping[str, object], outcome: Outcome) -> Event:
        looked, signalled = outcome.act or (None, None)
        became = {
            "outcome": outcome.result,
            "detail": outcome.detail,
            "outcome_at": isoformat(outcome.at),
            "looked_again_at": isoformat(looked),
            "signalled_at": isoformat(signalled),
        }
        return self._event(OUTCOME, {**intended, **became})


def session_fields(reap: Reap, at: Instant) -> dict[str, object]:
    """The policy that matches a session, and the session as it was at that time."""
    return {
        "policy": reap.policy.name,
        "mode": reap.mode,
        "action": reap.action,
        **_snapshot_fields(reap.session, at),
        "reason": reap.reason,
    }


def _snapshot_fields(session: Session, now: Instant) -> dict[str, object]:
    def age(then: Instant | None) -> float | None:
        span = since(then, now)
        return None if span is None else seconds(span)

    return {
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
        "server_time": isoformat(now),
        **({} if session.query is None else {"query": session.query}),
    }


def _dry_run_outcome_fields(became: Fated) -> dict[str, object]:
    one = became.watched
    return {
        "intent": one.intent,
        "rules": one.rules,
        **session_fields(one.reap, one.at),
        "fate": became.fate,
        "detail": became.reason,
        "fate_at": isoformat(became.seen),
        "used_at": isoformat(became.used_at),
        "after_s": seconds(became.after),
        "unseen_s": seconds(became.unseen),
    }


def _refill_guard_fields(pool: Refilling) -> dict[str, object]:
    came_back, acts = pool.evidence.because
    return {
        "policy": pool.policy.name,
        "mode": pool.policy.mode,
        "action": pool.policy.action,
        "server_time": isoformat(pool.at),
        "reason": pool.left_alone.reason,
        **pool.identity._asdict(),
        "acts": acts,
        "came_back": came_back,
        "until": isoformat(pool.left_alone.until),
    }


def _safety_limit_fields(trip: BrakeTrip, at: Instant) -> dict[str, object]:
    return {
        "policy": trip.policy.name,
        "mode": trip.policy.mode,
        "action": trip.policy.action,
        "server_time": isoformat(at),
        "condemned": trip.condemned,
        "clients": trip.clients,
        "reason": trip.reason,
    }


def _intent_fields(intent: Event) -> dict[str, object]:
    """The fields of an intent that was read back, for its outcome."""
    # The file may have been edited: nothing but plain values is repeated.
    plain = {name: value for name, value in intent.fields.items() if isinstance(value, str | int | float)}
    names = [name for name, *_ in EVENTS[INTENT] if name not in STAMPED]
    return {name: plain.get(name) for name in names if name in intent.fields or name not in OPTIONAL}
