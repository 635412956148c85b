"""The ledger: intents before the first signal, outcomes after each, in every sink or not at all."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

from reaper.audit.events import (
    BRAKED,
    COUNTERS,
    EVENTS,
    FATE,
    HELD_BACK,
    INTENT,
    LEFT_ALONE,
    OPTIONAL,
    OUTCOME,
    WRITTEN_BY_THE_PEN,
    Event,
)
from reaper.audit.sinks import AuditLogFailed, Clock, Copy, Head, Sink
from reaper.insight.dryrun.assessment import RESTRAINTS, Restrained
from reaper.insight.dryrun.outcomes import Fated
from reaper.policy.plan import BrakeTrip, Outcome, Reap, Refilling, Result
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import Instant, isoformat, seconds, since


def reaped(reap: Reap, at: Instant) -> dict[str, object]:
    """A session that a policy condemns, as it was seen at this moment."""
    return {
        "policy": reap.policy.name,
        "mode": reap.mode,
        "action": reap.action,
        **_seen(reap.session, at),
        "reason": reap.reason,
    }


def fate(became: Fated) -> dict[str, object]:
    """What became of a session after its rehearsal, beside all that its intent has told."""
    one = became.watched
    return {
        "intent": one.intent,
        "rules": one.rules,
        **reaped(one.reap, one.at),
        "fate": became.fate,
        "detail": became.reason,
        "fate_at": isoformat(became.seen),
        "used_at": isoformat(became.used_at),
        "after_s": seconds(became.after),
        "unseen_s": seconds(became.unseen),
    }


def refilling(pool: Refilling) -> dict[str, object]:
    """A group that is left alone, and why."""
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


def held_back(one: Restrained, at: Instant) -> dict[str, object]:
    """How many a restraint of a rehearsed policy holds back at this moment."""
    return {
        "policy": one.policy.name,
        "mode": one.policy.mode,
        "action": one.policy.action,
        "server_time": isoformat(at),
        "reason": f"a rehearsal would have met {one.many} more, held back {RESTRAINTS[one.by]}",
        "restraint": one.by,
        "held": one.many,
    }


def only(names: Sequence[str], fields: Mapping[str, object]) -> dict[str, object]:
    """These fields of an event that was read back, and none that is no plain value."""
    # They come from a file that anybody may have written to: nothing but plain values is repeated.
    plain = {name: value for name, value in fields.items() if isinstance(value, str | int | float)}
    return {name: plain.get(name) for name in names if name in fields or name not in OPTIONAL}


def _seen(session: Session, now: Instant) -> dict[str, object]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who writes, and by which rules."""

    version: str
    host: str
    by: str
    """The role that the reaper logged in as."""
    server: str
    rules: str
    """The digest of the policy file."""
    dry_run: bool
    """Whether the whole run is a rehearsal, whatever the policies' modes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """What a server has counted by itself."""

    at: Instant
    started: Instant
    databases: int
    terminations: int | None
    reset: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A reap that the record knows of, and what its outcome will repeat."""

    id: str
    reap: Reap
    fields: Mapping[str, object] = field(repr=False)


class Ledger:
    """Writes every event to every sink; may be shared by the cycles of several servers."""

    def __init__(self, sinks: Sequence[Sink], *, clock: Clock, run: str) -> None:
        if not sinks:
            message = "a ledger without a sink would let terminations go unrecorded"
            raise ValueError(message)
        self._copies = [Copy(sink, clock=clock, run=run) for sink in sinks]
        self._clock = clock
        self._run = run
        self._numbers = count(1)
        self._lock = Lock()

    @property
    def run(self) -> str:
        """This life of the writer."""
        return self._run

    def open(self) -> None:
        """Open every sink: a record that cannot be written shows at the start, not when it counts."""
        with self._lock:
            self._each(lambda copy: copy.write(durable=True))

    def intend(
        self, author: Author, cycle: str, snapshot: Snapshot, reaps: Sequence[Reap]
    ) -> Sequence[Intent]:
        """Write intents durably; after AuditLogFailed nothing may be terminated."""
        if not reaps:
            return ()
        with self._lock:
            for copy in self._copies:
                # What is owed comes first and alone, so that debts cannot pile up while a disk is full.
                copy.write()
            intents = [self._intent(author, cycle, snapshot, reap) for reap in reaps]
            self._commit(intents)
        return intents

    def settle(self, intent: Intent, outcome: Outcome) -> None:
        """Record what became of an intent; what a sink cannot take now it gets before anything else."""
        self.log_outcomes([(intent, outcome)])

    def log_outcomes(self, settled: Sequence[tuple[Intent, Outcome]]) -> None:
        """The same for what became known at one moment."""
        with self._lock:
            events = [self._outcome(intent.fields, outcome) for intent, outcome in settled]
            self._each(lambda copy: copy.deliver(events))

    def settle_earlier(self, intents: Sequence[Event], detail: str) -> None:
        """Record, to last, that nobody knows what became of the intents of an earlier life."""
        unknown = Outcome(result=Result.UNKNOWN, detail=detail)
        names = [name for name, *_ in EVENTS[INTENT] if name not in WRITTEN_BY_THE_PEN]
        with self._lock:
            events = [self._outcome(only(names, intent.fields), unknown) for intent in intents]
            self._each(lambda copy: copy.write(events, durable=True))

    def flush(self) -> None:
        """Make all outcomes durable."""
        with self._lock:
            self._each(Copy.flush)

    def log_safety_limit(
        self, author: Author, cycle: str, snapshot: Snapshot, trips: Sequence[BrakeTrip]
    ) -> None:
        """Record, to last, which policies would have taken too large a share."""
        if not trips:
            return
        with self._lock:
            events = [self._event(BRAKED, _brake(author, cycle, snapshot, trip)) for trip in trips]
            self._each(lambda copy: copy.write(events, durable=True))

    def log_dry_run_outcomes(self, author: Author, became: Sequence[Fated]) -> None:
        """Record what became of sessions after their rehearsal, now or before anything else."""
        if not became:
            return
        with self._lock:
            events = [
                self._event(FATE, {**_authored(author, each.watched.cycle), **fate(each)}) for each in became
            ]
            self._each(lambda copy: copy.deliver(events))

    def log_refill_guard(self, author: Author, cycle: str, pools: Sequence[Refilling]) -> None:
        """Record which groups a policy leaves alone from now on; now, or before anything else."""
        if not pools:
            return
        with self._lock:
            told = [{**_authored(author, cycle), **refilling(each)} for each in pools]
            events = [self._event(LEFT_ALONE, fields) for fields in told]
            self._each(lambda copy: copy.deliver(events))

    def held_back(self, author: Author, cycle: str, at: Instant, held: Sequence[Restrained]) -> None:
        """Record how many a rehearsal's restraints hold back now; now, or before anything else."""
        if not held:
            return
        with self._lock:
            told = [{**_authored(author, cycle), **held_back(each, at)} for each in held]
            events = [self._event(HELD_BACK, fields) for fields in told]
            self._each(lambda copy: copy.deliver(events))

    def tallied(self, author: Author, tallied: Tallied) -> None:
        """Record, to last, what the server has counted by now."""
        fields = {
            "server": author.server,
            "by": author.by,
            "version": author.version,
            "host": author.host,
            "server_time": isoformat(tallied.at),
            "server_started": isoformat(tallied.started),
            "databases": tallied.databases,
            "terminations": tallied.terminations,
            "counters_reset": isoformat(tallied.reset),
        }
        with self._lock:
            event = self._event(COUNTERS, fields)
            self._each(lambda copy: copy.write([event], durable=True))

    def heads(self) -> Sequence[Head]:
        """Where the chain of each sink stands now."""
        with self._lock:
            return [head for copy in self._copies if (head := copy.head)]

    def reopen(self) -> None:
        """Let go of every file, for logrotate has moved them."""
        with self._lock:
            self._each(Copy.reopen)

    def close(self) -> None:
        """Make the rest durable and write nothing any more."""
        with self._lock:
            self._each(Copy.close)

    def _commit(self, intents: Sequence[Intent]) -> None:
        events = [self._event(INTENT, intent.fields) for intent in intents]
        for number, copy in enumerate(self._copies, start=1):
            try:
                copy.write(events, durable=True)
            except AuditLogFailed:
                self._withdraw(intents, self._copies[:number])
                raise

    def _withdraw(self, intents: Sequence[Intent], reached: Sequence[Copy]) -> None:
        # We know that nothing was attempted; left open, they would be settled as unknown one day. The copy
        # that failed may hold some of them and is told later; those after it never heard of them.
        outcome = Outcome(result=Result.WITHDRAWN, detail="the record could not be written")
        events = [self._outcome(intent.fields, outcome) for intent in intents]
        for copy in reached:
            with suppress(AuditLogFailed):
                copy.deliver(events, durable=True)

    def _each(self, act: Callable[[Copy], None]) -> None:
        """Do it with every copy, whatever becomes of the others; then raise the first failure."""
        failures = []
        for copy in self._copies:
            try:
                act(copy)
            except AuditLogFailed as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _event(self, name: str, fields: Mapping[str, object]) -> Event:
        return Event(name=name, time=self._clock(), fields=fields)

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

    def _intent(self, author: Author, cycle: str, snapshot: Snapshot, reap: Reap) -> Intent:
        number = f"{self._run}/{next(self._numbers)}"
        fields = {"intent": number, **_authored(author, cycle), **reaped(reap, snapshot.at)}
        return Intent(id=number, reap=reap, fields=fields)


def _authored(author: Author, cycle: str) -> dict[str, object]:
    return {
        "cycle": cycle,
        "server": author.server,
        "rules": author.rules,
        "by": author.by,
        "version": author.version,
        "host": author.host,
        "dry_run": author.dry_run,
    }


def _brake(author: Author, cycle: str, snapshot: Snapshot, trip: BrakeTrip) -> dict[str, object]:
    return {
        **_authored(author, cycle),
        "policy": trip.policy.name,
        "mode": trip.policy.mode,
        "action": trip.policy.action,
        "server_time": isoformat(snapshot.at),
        "condemned": trip.condemned,
        "clients": trip.clients,
        "reason": trip.reason,
    }
