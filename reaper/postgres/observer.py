"""Observing: one statement per cycle; the expensive facts only when a candidate needs them.

The prefilter is in observe.sql: it counts all sessions and returns those that could be due soon.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import psycopg

from reaper.policy.decide import NeededFacts, needed_facts
from reaper.policy.prefilter import Prefilter, unmatched_roles
from reaper.policy.rules import Rules
from reaper.policy.session import (
    CLIENT_BACKEND,
    Facts,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import SECOND, Duration, Timestamp
from reaper.postgres.connection import Connection
from reaper.postgres.errors import ServerError, sentence
from reaper.postgres.preflight import Probe
from reaper.postgres.query_text import QueryText
from reaper.postgres.rows import ObservedRow, SessionReader, instant_of
from reaper.postgres.sql import statement

_OBSERVE: Final = statement("observe")
_ADVISORY_LOCKS: Final = statement("advisory_locks")
_WAITERS: Final = statement("waiters")
_AT: Final = ObservedRow._fields.index("at")
_CUTOFFS: Final = ("quiet", "aborted", "transaction", "connected")
_NO_CUTOFFS: Final = Prefilter()
_EVERY_FACT: Final = NeededFacts(advisory_locks=True, blocking=True)
_CENTURY: Final = 36_525 * 86_400 * SECOND
_FULL_EVERY: Final = Duration(300 * SECOND)
"""A full snapshot has the counts by state, and sessions that the prefilter hides after a clock was set."""
_FEW: Final = 200
_FEW_EVERY: Final = Duration(60 * SECOND)
"""The same on a server with few sessions, where it costs less."""
_ONE_BY_ONE: Final = 0.1
"""Up to this share of all backends is read one by one, more of them all at once."""


class ObservingFailed(ServerError):
    """One snapshot of a reachable server failed; the next may succeed."""


class Observer:
    """Takes snapshots of one server."""

    def __init__(
        self,
        connection: Connection,
        probe: Probe,
        *,
        server: str,
        query_text: QueryText = QueryText.NONE,
        one_by_one: float = _ONE_BY_ONE,
    ) -> None:
        self._connection = connection
        self._probe = probe
        self._server = server
        self._query_text = query_text
        self._one_by_one = one_by_one
        self._full = FullSnapshotSchedule()
        self._reader = SessionReader(connection.encoding, query_text)

    def know(self, probe: Probe) -> None:
        """Use a newer probe of the server and of our rights."""
        self._probe = probe

    @property
    def server(self) -> str:
        """The name of the server."""
        return self._server

    async def observe(self, rules: Rules | None, *, ahead: Duration | None = None) -> Snapshot:
        """Take a snapshot, with the facts that these rules need; with every fact when there are no rules.

        With `ahead` the prefilter leaves out client sessions that no policy can match within this time.
        """
        try:
            snapshot, needed = await self._sufficient(rules, ahead)
            blockers = await self._blockers() if needed.blocking else None
            locks = await self._connection.rows(_ADVISORY_LOCKS) if needed.advisory_locks else None
            facts = Facts(
                advisory_lock_holders=None if locks is None else frozenset(pid for (pid,) in locks),
                waiters=None if blockers is None else count_waiters(blockers),
                blockers=blockers,
            )
        except psycopg.Error as error:
            raise _failed(error) from None
        return replace(snapshot, facts=facts)

    async def all_sessions(self) -> Snapshot:
        """Take a full snapshot, with lock waits and no other fact."""
        try:
            snapshot = await self._snapshot(_NO_CUTOFFS, full=True)
            blockers = await self._blockers()
        except psycopg.Error as error:
            raise _failed(error) from None
        return replace(snapshot, facts=Facts(waiters=count_waiters(blockers), blockers=blockers))

    async def _sufficient(self, rules: Rules | None, ahead: Duration | None) -> tuple[Snapshot, NeededFacts]:
        """One snapshot; a second, full one if a limit of a candidate's policy counts all sessions."""
        if rules is None:
            return await self._snapshot(_NO_CUTOFFS, full=True), _EVERY_FACT
        prefilter = _NO_CUTOFFS if ahead is None else _sooner(rules.prefilter, ahead)
        snapshot = await self._snapshot(prefilter, full=ahead is None or self._full.due(rules))
        needed = needed_facts(snapshot, rules)
        if needed.all_sessions and snapshot.left_out is not None:
            snapshot = await self._snapshot(prefilter, full=True)
            needed = needed_facts(snapshot, rules)
        self._full.note(snapshot, rules, again=needed.all_sessions)
        return snapshot, needed

    async def _snapshot(self, prefilter: Prefilter, *, full: bool) -> Snapshot:
        params = {
            **_limits(prefilter),
            "full": full,
            "with_query": self._query_text.wanted,
            "one_by_one": self._one_by_one,
            "unmatched": list(self._full.unmatched_roles),
        }
        return self._snapshot_of(await self._connection.rows(_OBSERVE, params, raw=True), full=full)

    def _snapshot_of(self, rows: Sequence[tuple[Any, ...]], *, full: bool) -> Snapshot:
        sessions, probe = self._reader.sessions(rows), self._probe
        own = ObservedRow._make(next(row for row in rows if row[_AT] is not None))
        left_out = None if full else (own.clients or 0) - len(sessions)
        clients = sum(session.kind == CLIENT_BACKEND for session in sessions)
        return Snapshot(
            server=self._server,
            at=instant_of(own.at) or Timestamp(0),
            slots=Slots(
                total=probe.max_connections,
                reserved=probe.superuser_reserved + probe.reserved,
                used=clients + (left_out or 0),
                superuser_reserved=probe.superuser_reserved,
            ),
            watcher=Watcher(pid=self._connection.pid, role=probe.role, superuser=probe.superuser),
            sessions=sessions,
            left_out=left_out,
            unreadable=len(rows) - len(sessions) if left_out is None else own.unreadable or 0,
        )

    async def _blockers(self) -> Mapping[int, frozenset[int]]:
        return {waiter: frozenset(blockers) for waiter, blockers in await self._connection.rows(_WAITERS)}


class FullSnapshotSchedule:
    """When to take a full snapshot: under new rules, at intervals, and while a limit counts all sessions."""

    def __init__(self) -> None:
        self._rules: Rules | None = None
        self._at: Timestamp | None = None
        self.unmatched_roles = tuple[int, ...]()
        """By the last full snapshot; a role that was renamed meanwhile is noticed at the next."""

    def due(self, rules: Rules) -> bool:
        """Return True if the next snapshot must be a full one."""
        return rules is not self._rules or self._at is None

    def note(self, snapshot: Snapshot, rules: Rules, *, again: bool) -> None:
        """Remember a snapshot."""
        self._rules = rules
        if snapshot.left_out is None:
            self._at = None if again else snapshot.at
            self.unmatched_roles = unmatched_roles(snapshot, rules.matches)
        elif self._at is not None and not 0 <= snapshot.at - self._at < _full_every(snapshot):
            # Due by the server's clock, or that clock was set back.
            self._at = None


# Cached: the same in every cycle, at every server, until the rules change.
@lru_cache
def _sooner(prefilter: Prefilter, ahead: Duration) -> Prefilter:
    return prefilter.sooner(ahead)


def _failed(error: psycopg.Error) -> ObservingFailed:
    return ObservingFailed(f"could not observe: {sentence(error)}")


def _limits(prefilter: Prefilter) -> Mapping[str, timedelta | None]:
    return {name: _interval(getattr(prefilter, name)) for name in _CUTOFFS}


def _full_every(snapshot: Snapshot) -> Duration:
    return _FEW_EVERY if snapshot.clients < _FEW else _FULL_EVERY


def _interval(span: Duration | None) -> timedelta | None:
    # At most a century: the cutoff must not lie before the beginning of the calendar of the server.
    return None if span is None else timedelta(microseconds=min(span, _CENTURY))


def count_waiters(blockers_of: Mapping[int, AbstractSet[int]]) -> Mapping[int, int]:
    """The number of waiters per blocking pid; for the root of a queue, of the whole queue."""
    behind = defaultdict[int, set[int]](set)
    for waiter, blockers in blockers_of.items():
        for blocker in blockers - {0}:  # 0 is a prepared transaction, which has no session
            behind[blocker].add(waiter)
    direct = Counter({pid: len(queue) for pid, queue in behind.items()})
    return {pid: direct[pid] if pid in blockers_of else len(_queue(pid, behind)) for pid in behind}


def _queue(root: int, behind: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    front = {root}
    while front:
        front = set().union(*(behind.get(pid, set()) for pid in front)) - found - {root}
        found |= front
    return found
