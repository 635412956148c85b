"""Observing: one statement a cycle, and the dearer facts only when a candidate needs them."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import psycopg

from reaper.policy.decide import questions
from reaper.policy.rules import Rules
from reaper.policy.session import (
    CLIENT_BACKEND,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.spans import Instant
from reaper.postgres.errors import ServerError, sentence
from reaper.postgres.link import Link
from reaper.postgres.preflight import Probe
from reaper.postgres.query_text import QueryText
from reaper.postgres.sql import statement

_OBSERVE: Final = statement("observe")
_ADVISORY_LOCKS: Final = statement("advisory_locks")
_WAITERS: Final = statement("waiters")


class _Row(NamedTuple):
    """The columns of observe.sql."""

    pid: int
    backend_start: Instant | None
    database: str | None
    role: str | None
    application: str | None
    client: str | None
    kind: str | None
    role_oid: int | None
    superuser: bool | None
    client_port: int | None
    state: str | None
    state_change: Instant | None
    query_start: Instant | None
    xact_start: Instant | None
    wait_event: str | None
    xid_age: int | None
    listens: bool | None
    starts_backup: bool | None
    query: str | None
    at: Instant


class ObservingFailed(ServerError):
    """The server is there, and one look at it failed; the next may succeed."""


class Observer:
    """Looks at one server."""

    def __init__(
        self, link: Link, probe: Probe, *, server: str, query_text: QueryText = QueryText.NONE
    ) -> None:
        self._link = link
        self._probe = probe
        self._server = server
        self._query_text = query_text

    async def observe(self, rules: Rules | None) -> Snapshot:
        """Take a snapshot, with the facts that these rules need; with every fact when there are no rules."""
        try:
            snapshot = self._snapshot(
                await self._link.rows(_OBSERVE, {"with_query": self._query_text.wanted})
            )
            locks, blocking = questions(snapshot, rules) if rules else (True, True)
            facts = Facts(
                advisory_lock_holders=await self._lock_holders() if locks else None,
                waiters=await self._waiters() if blocking else None,
            )
        except psycopg.Error as error:
            message = f"could not observe: {sentence(error)}"
            raise ObservingFailed(message) from None
        return replace(snapshot, facts=facts)

    def _snapshot(self, rows: list[tuple[Any, ...]]) -> Snapshot:
        seen = [_Row._make(row) for row in rows]
        sessions = tuple(session for row in seen if (session := self._session(row)))
        probe = self._probe
        return Snapshot(
            server=self._server,
            at=seen[0].at,
            slots=Slots(
                total=probe.max_connections,
                reserved=probe.superuser_reserved + probe.reserved,
                used=sum(session.kind == CLIENT_BACKEND for session in sessions),
            ),
            watcher=Watcher(pid=self._link.pid, role=probe.role, superuser=probe.superuser),
            sessions=sessions,
            unreadable=len(seen) - len(sessions),
        )

    def _session(self, row: _Row) -> Session | None:
        """What the server told of a session; nothing when it hides what it is or since when."""
        if row.kind is None or row.backend_start is None:
            return None
        return Session(
            id=SessionId(row.pid, row.backend_start),
            identity=Identity(row.database, row.role, row.application, row.client),
            kind=row.kind,
            role_oid=row.role_oid,
            superuser=bool(row.superuser),
            client_port=row.client_port,
            state=row.state,
            state_change=row.state_change,
            query_start=row.query_start,
            xact_start=row.xact_start,
            wait_event=row.wait_event,
            xid_age=row.xid_age,
            last_query_listens=bool(row.listens),
            last_query_starts_backup=bool(row.starts_backup),
            query=self._query_text.shown(row.query),
        )

    async def _lock_holders(self) -> frozenset[int]:
        return frozenset(pid for (pid,) in await self._link.rows(_ADVISORY_LOCKS))

    async def _waiters(self) -> Mapping[int, int]:
        return count_waiters({waiter: set(blockers) for waiter, blockers in await self._link.rows(_WAITERS)})


def count_waiters(blockers_of: Mapping[int, set[int]]) -> Mapping[int, int]:
    """How many wait for each: for one that does not wait itself, everybody in the queue behind it."""
    behind = defaultdict[int, set[int]](set)
    for waiter, blockers in blockers_of.items():
        for blocker in blockers - {0}:  # 0 is a prepared transaction: no session at all
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
