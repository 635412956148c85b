"""Collects evidence from snapshots, one at a time; only the last snapshot is kept.

Snapshots come from a server, a running service, a file or a history: all of them are counted here.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.advice.evidence import (
    DEFAULT_IDLE_LIMIT,
    WAITING,
    ApplicationId,
    ApplicationSessions,
    Durations,
    Evidence,
    recent_window,
)
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.session import ACTIVE, CLIENT_BACKEND, IDLE, Session, SessionId, Snapshot
from reaper.policy.time import Instant, Span

MAX_APPLICATIONS: Final = 4_096
"""Counted separately; a client may set a new application name for every session."""
_WORKING: Final = WAITING | {ACTIVE}
_BUCKETS: Final = 12


class _RecentCount:
    """Counts events within a moving window, in little memory and therefore approximately."""

    def __init__(self, window: Span) -> None:
        self._width = max(window // _BUCKETS, 1)
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS + 1)

    def add(self, at: Instant) -> None:
        bucket, count = at // self._width, 1
        if self._buckets and self._buckets[-1][0] == bucket:
            count += self._buckets.pop()[1]
        self._buckets.append((bucket, count))

    def count(self, now: Instant) -> int:
        return sum(count for bucket, count in self._buckets if bucket >= now // self._width - _BUCKETS)


@dataclass(slots=True)
class _Gauge:
    """A number that rises and falls, and its maximum over whole snapshots."""

    now: int = 0
    most: int = 0

    def settle(self) -> None:
        self.most = max(self.most, self.now)


@dataclass(slots=True)
class _Counts:
    """The counters of one application."""

    opened: _RecentCount
    closed: _RecentCount
    sessions: _Gauge = field(default_factory=_Gauge)
    working: _Gauge = field(default_factory=_Gauge)
    idle_waits: Durations = field(default_factory=Durations)
    transaction_waits: Durations = field(default_factory=Durations)
    transactions: Durations = field(default_factory=Durations)


class EvidenceCollector:
    """Takes snapshots of all sessions, the oldest first."""

    def __init__(self, *, idle_limit: Span = DEFAULT_IDLE_LIMIT) -> None:
        self._idle_limit = idle_limit
        self._window = recent_window(idle_limit)
        self._first_at: Instant | None = None
        self._last: Snapshot | None = None
        self._snapshots = 0
        self._sessions: dict[SessionId, Session] = {}
        self._used_at: dict[SessionId, Instant] = {}
        self._new: set[SessionId] = set()
        self._counts: dict[ApplicationId, _Counts] = {}
        self._untracked = self._new_counts()
        self._roles = defaultdict[str, _Gauge](_Gauge)
        self._working = _Gauge()
        self._peak = 0
        self._peak_at = Instant(0)
        self._opened = 0
        self._short_lived = 0

    def add(self, snapshot: Snapshot) -> None:
        """Count the next snapshot; one that is not later than the last is ignored (a clock was set)."""
        if self._last is not None and snapshot.at <= self._last.at:
            return
        changed = set[ApplicationId]()
        present = set[SessionId]()
        for session in snapshot.sessions:
            present.add(session.id)
            past = self._sessions.get(session.id)
            # In a history most sessions are the same object as before: that saves comparing every field.
            if session is not past and session != past and _is_client(session, snapshot):
                changed |= self._replace(past, session)
                self._note(past, session, snapshot.at)
        for id_ in self._sessions.keys() - present:
            changed.add(self._remove(id_, snapshot.at))
        self._settle(changed)
        if snapshot.slots.used > self._peak:
            self._peak, self._peak_at = snapshot.slots.used, snapshot.at
        self._first_at = snapshot.at if self._first_at is None else self._first_at
        self._last = snapshot
        self._snapshots += 1

    def evidence(self, *, before: ServerFacts | None = None, facts: ServerFacts | None = None) -> Evidence:
        """Return the evidence so far; ValueError before the first snapshot."""
        if self._first_at is None or self._last is None:
            message = "no snapshot yet"
            raise ValueError(message)
        applications = sorted(self._applications(self._last.at), key=lambda each: (-each.count, each.id))
        return Evidence(
            first_at=self._first_at,
            last=self._last,
            snapshots=self._snapshots,
            idle_limit=self._idle_limit,
            applications=tuple(applications),
            untracked=len(self._sessions) - sum(each.count for each in applications),
            peak=self._peak,
            peak_at=self._peak_at,
            role_peaks={role: gauge.most for role, gauge in self._roles.items()},
            opened=self._opened,
            short_lived=self._short_lived,
            most_working=self._working.most,
            facts_before=before,
            facts=facts,
        )

    def _replace(self, past: Session | None, session: Session) -> set[ApplicationId]:
        self._sessions[session.id] = session
        self._count(session, 1)
        if past is None:
            return {_id(session)}
        self._count(past, -1)
        return {_id(past), _id(session)}

    def _remove(self, id_: SessionId, at: Instant) -> ApplicationId:
        past = self._sessions.pop(id_)
        self._count(past, -1)
        self._counts_of(past).closed.add(at)
        self._used_at.pop(id_, None)
        self._short_lived += id_ in self._new
        self._new.discard(id_)
        return _id(past)

    def _count(self, session: Session, by: int) -> None:
        counts, working = self._counts_of(session), by * (session.state in _WORKING)
        counts.sessions.now += by
        counts.working.now += working
        self._working.now += working
        self._roles[_id(session).role].now += by

    def _note(self, past: Session | None, session: Session, now: Instant) -> None:
        """Note what a session did since the last snapshot."""
        counts, before = self._counts_of(session), self._last.at if self._last else None
        if past is None and before is not None:
            self._opened += 1
            self._new.add(session.id)
            counts.opened.add(now)
        if past is not None and before is not None and past.state_change != session.state_change:
            self._used_at[session.id] = now
            _note_change(counts, past, session, before, now)
        if session.state == ACTIVE:
            self._used_at[session.id] = now

    def _settle(self, changed: Iterable[ApplicationId]) -> None:
        for id_ in changed:
            counts = self._counts.get(id_, self._untracked)
            for gauge in (counts.sessions, counts.working, self._roles[id_.role]):
                gauge.settle()
        self._working.settle()

    def _counts_of(self, session: Session) -> _Counts:
        id_ = _id(session)
        if id_ not in self._counts:
            if len(self._counts) >= MAX_APPLICATIONS:
                return self._untracked
            self._counts[id_] = self._new_counts()
        return self._counts[id_]

    def _new_counts(self) -> _Counts:
        return _Counts(opened=_RecentCount(self._window), closed=_RecentCount(self._window))

    def _applications(self, now: Instant) -> Iterator[ApplicationSessions]:
        members = defaultdict[ApplicationId, list[Session]](list)
        for session in self._sessions.values():
            if (id_ := _id(session)) in self._counts:
                members[id_].append(session)
        recently = now - self._window
        for id_, sessions in members.items():
            counts = self._counts[id_]
            used = (s.state == ACTIVE or self._used_at.get(s.id, recently) > recently for s in sessions)
            yield ApplicationSessions(
                id=id_,
                at=now,
                idle_limit=self._idle_limit,
                sessions=tuple(sessions),
                peak=counts.sessions.most,
                opened=counts.opened.count(now),
                closed=counts.closed.count(now),
                used=sum(used),
                most_working=counts.working.most,
                idle_waits=counts.idle_waits,
                transaction_waits=counts.transaction_waits,
                transactions=counts.transactions,
            )


def _is_client(session: Session, snapshot: Snapshot) -> bool:
    """Return True unless it is a walsender or a reaper."""
    identity = session.identity
    ours = identity.application == REAPER_APPLICATION and identity.role == snapshot.watcher.role
    return session.kind == CLIENT_BACKEND and not ours and session.id.pid != snapshot.watcher.pid


def _id(session: Session) -> ApplicationId:
    return ApplicationId(session.identity.role or "", session.identity.application or "")


def _note_change(counts: _Counts, past: Session, session: Session, before: Instant, now: Instant) -> None:
    """Note how long a session waited until it was used again, and how long its transaction was."""
    if past.state_change is None:
        return
    woke = now if session.query_start is None else min(max(session.query_start, before), now)
    waited = Span(woke - past.state_change)
    if past.state == IDLE:
        counts.idle_waits.add(waited)
    elif past.state in WAITING:
        counts.transaction_waits.add(waited)
    if past.xact_start is not None and past.xact_start != session.xact_start:
        counts.transactions.add(Span(before - past.xact_start))
