"""Collects evidence from snapshots, one at a time; only the last snapshot is kept.

Snapshots come from a server, a running service, a file or a history: all of them are counted here.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.advice.evidence import (
    DEFAULT_IDLE_LIMIT,
    WAITING_STATES,
    ApplicationId,
    ApplicationSessions,
    DurationHistogram,
    Evidence,
    Period,
    lasting,
)
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.protections import REAPER_APPLICATION
from reaper.policy.session import ACTIVE, CLIENT_BACKEND, IDLE, Session, SessionId, Snapshot
from reaper.policy.time import Duration, Timestamp

MAX_APPLICATIONS: Final = 4_096
"""Counted separately; a client may set a new application name for every session."""
_WORKING: Final = (ACTIVE, *WAITING_STATES)
_RECENT: Final = 6
"""Times the idle limit: an hour by default."""
_TRANSACTION_SHARE: Final = 10
"""In a transaction a tenth of the idle limit is already long, because it holds locks."""
_BUCKETS: Final = 12


class _RecentCount:
    """Counts events within a moving window, in little memory and therefore approximately."""

    def __init__(self, window: Duration) -> None:
        self._width = max(window // _BUCKETS, 1)
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS + 1)

    def add(self, at: Timestamp) -> None:
        bucket, count = at // self._width, 1
        if self._buckets and self._buckets[-1][0] == bucket:
            count += self._buckets.pop()[1]
        self._buckets.append((bucket, count))

    def count(self, now: Timestamp) -> int:
        return sum(count for bucket, count in self._buckets if bucket >= now // self._width - _BUCKETS)


@dataclass(slots=True)
class _ApplicationCounters:
    opened: _RecentCount
    closed: _RecentCount
    most_working: int = 0
    ended: Mapping[Period, DurationHistogram] = field(
        default_factory=lambda: {period: DurationHistogram() for period in Period}
    )


class EvidenceCollector:
    """Takes snapshots of all sessions, the oldest first."""

    def __init__(self, *, idle_limit: Duration = DEFAULT_IDLE_LIMIT) -> None:
        self._idle_limit = idle_limit
        self._transaction_limit = Duration(idle_limit // _TRANSACTION_SHARE)
        self._window = max(Duration(idle_limit * _RECENT), DEFAULT_IDLE_LIMIT)
        self._first_at: Timestamp | None = None
        self._last: Snapshot | None = None
        self._snapshots = 0
        self._sessions: dict[SessionId, Session] = {}
        self._used_at: dict[SessionId, Timestamp] = {}
        self._new: set[SessionId] = set()
        self._counters: dict[ApplicationId, _ApplicationCounters] = {}
        self._untracked = self._new_counters()
        self._role_peaks = Counter[str]()
        self._most_working = 0
        self._peak = 0
        self._peak_at = Timestamp(0)
        self._opened = 0
        self._short_lived = 0

    def add(self, snapshot: Snapshot) -> None:
        """Count the next snapshot; one that is not later than the last is ignored (a clock was set)."""
        if self._last is not None and snapshot.at <= self._last.at:
            return
        present = set[SessionId]()
        for session in snapshot.sessions:
            present.add(session.id)
            past = self._sessions.get(session.id)
            # In a history most sessions are the same object as before: that saves comparing every field.
            if session is not past and session != past and _is_client(session, snapshot):
                self._sessions[session.id] = session
                self._note(past, session, snapshot.at)
        for id_ in self._sessions.keys() - present:
            self._remove(id_, snapshot.at)
        self._note_peaks()
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
            span=Duration(self._last.at - self._first_at),
            last=self._last,
            snapshots=self._snapshots,
            idle_limit=self._idle_limit,
            window=self._window,
            transaction_limit=self._transaction_limit,
            applications=tuple(applications),
            untracked=len(self._sessions) - sum(each.count for each in applications),
            peak=self._peak,
            peak_at=self._peak_at,
            role_peaks=dict(self._role_peaks),
            opened=self._opened,
            short_lived=self._short_lived,
            most_working=self._most_working,
            facts_before=before,
            facts=facts,
        )

    def _remove(self, id_: SessionId, at: Timestamp) -> None:
        self._counters_of(self._sessions.pop(id_)).closed.add(at)
        self._used_at.pop(id_, None)
        self._short_lived += id_ in self._new
        self._new.discard(id_)

    def _note_peaks(self) -> None:
        self._role_peaks |= Counter(each.identity.role or "" for each in self._sessions.values())
        working = [each for each in self._sessions.values() if each.state in _WORKING]
        self._most_working = max(self._most_working, len(working))
        for id_, count in Counter(map(_application, working)).items():
            counters = self._counters.get(id_, self._untracked)
            counters.most_working = max(counters.most_working, count)

    def _note(self, past: Session | None, session: Session, now: Timestamp) -> None:
        """Note what changed of a session since the last snapshot."""
        counters, before = self._counters_of(session), self._last.at if self._last else None
        if past is None and before is not None:
            self._opened += 1
            self._new.add(session.id)
            counters.opened.add(now)
        if past is not None and before is not None and past.state_change != session.state_change:
            self._used_at[session.id] = now
            _note_change(counters, past, session, before, now)
        if session.state == ACTIVE:
            self._used_at[session.id] = now

    def _counters_of(self, session: Session) -> _ApplicationCounters:
        id_ = _application(session)
        if id_ not in self._counters:
            if len(self._counters) >= MAX_APPLICATIONS:
                return self._untracked
            self._counters[id_] = self._new_counters()
        return self._counters[id_]

    def _new_counters(self) -> _ApplicationCounters:
        return _ApplicationCounters(opened=_RecentCount(self._window), closed=_RecentCount(self._window))

    def _applications(self, now: Timestamp) -> Iterator[ApplicationSessions]:
        members = defaultdict[ApplicationId, list[Session]](list)
        for session in self._sessions.values():
            if (id_ := _application(session)) in self._counters:
                members[id_].append(session)
        recently = now - self._window
        for id_, sessions in members.items():
            counters = self._counters[id_]
            idle = (each for each in sessions if each.state == IDLE)
            waiting = (each for each in sessions if each.state in WAITING_STATES)
            used = (s.state == ACTIVE or self._used_at.get(s.id, recently) > recently for s in sessions)
            yield ApplicationSessions(
                id=id_,
                idle_limit=self._idle_limit,
                sessions=tuple(sessions),
                long_idle=tuple(lasting(self._idle_limit, idle, now)),
                forgotten=tuple(lasting(self._transaction_limit, waiting, now)),
                superuser=any(session.superuser for session in sessions),
                databases=frozenset(session.identity.database for session in sessions),
                opened=counters.opened.count(now),
                closed=counters.closed.count(now),
                used=sum(used),
                most_working=counters.most_working,
                ended=counters.ended,
            )


def _is_client(session: Session, snapshot: Snapshot) -> bool:
    """Return True unless it is a walsender or a reaper."""
    identity = session.identity
    ours = identity.application == REAPER_APPLICATION and identity.role == snapshot.watcher.role
    return session.kind == CLIENT_BACKEND and not ours and session.id.pid != snapshot.watcher.pid


def _application(session: Session) -> ApplicationId:
    return ApplicationId(session.identity.role or "", session.identity.application or "")


def _note_change(
    counters: _ApplicationCounters, past: Session, session: Session, before: Timestamp, now: Timestamp
) -> None:
    """Note how long a session waited until it was used again, and how long its transaction was."""
    if past.state_change is None:
        return
    used_at = now if session.query_start is None else min(max(session.query_start, before), now)
    waited = Duration(used_at - past.state_change)
    if past.state == IDLE:
        counters.ended[Period.IDLE].add(waited)
    elif past.state in WAITING_STATES:
        counters.ended[Period.IN_TRANSACTION].add(waited)
    if past.xact_start is not None and past.xact_start != session.xact_start:
        counters.ended[Period.TRANSACTION].add(Duration(before - past.xact_start))
