"""Census: the sessions of one snapshot, counted. Its size is bounded, for clients choose their names.

Ages are in seconds and the moment is a text, so that a census is the same as JSON and on a page.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reaper.policy.protections import pooler
from reaper.policy.session import (
    ABORTED,
    ACTIVE,
    CLIENT_BACKEND,
    IDLE,
    IN_TRANSACTION,
    Identity,
    Session,
    Slots,
    Snapshot,
)
from reaper.policy.time import Timestamp, isoformat, seconds, since


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """The slots of a server, and those that are free for each kind of role."""

    total: int
    used: int
    by_superusers: int
    """Of those used, as far as known."""
    for_anybody: int
    """Free for ordinary roles."""
    for_reserved: int | None
    """Free for roles with pg_use_reserved_connections, from 16 on; None if unknown."""
    for_superusers: int
    """Free for superusers."""
    reserved: int
    """Slots that ordinary roles cannot use."""
    superuser_reserved: int | None
    """Of these, for superusers alone; None if unknown."""

    @property
    def usable(self) -> int:
        """Slots that ordinary roles can use."""
        return max(self.total - self.reserved, 0)

    @property
    def full(self) -> bool:
        """Return True if ordinary roles are refused."""
        return self.for_anybody == 0

    @property
    def share(self) -> float:
        """The share of the usable slots that is used; above 1 if reserved slots are used too."""
        return self.used / max(self.usable, 1)

    @property
    def level(self) -> str:
        """`alarm` from 95 % of the usable slots on, `warning` from 80 % on, else `fine`."""
        return (
            "alarm" if self.full or self.share >= _ALARM else "warning" if self.share >= _WARNING else "fine"
        )


def openings(slots: Slots, sessions: Sequence[Session]) -> Openings:
    """Return the slots that are used and free."""
    kept = slots.superuser_reserved
    return Openings(
        total=slots.total,
        used=slots.used,
        by_superusers=sum(session.superuser for session in sessions),
        for_anybody=max(slots.total - slots.reserved - slots.used, 0),
        for_reserved=None if kept is None else max(slots.total - kept - slots.used, 0),
        for_superusers=max(slots.total - slots.used, 0),
        reserved=slots.reserved,
        superuser_reserved=kept,
    )


_WARNING: Final = 0.8
_ALARM: Final = 0.95
CROWD: Final = 20
_CROWD_SHARE: Final = 1 / 3
"""This many sessions from one address, and this share of all, are probably a pooler or one large pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbablePooler:
    """Sessions that probably belong to a pooler."""

    kind: str | None
    """Its name; None if only the number of sessions from one address suggests it."""
    client: str | None
    count: int
    applications: int
    """How many application names these sessions have."""


def probable_poolers(sessions: Sequence[Session], *, top: int) -> tuple[ProbablePooler, ...]:
    """Poolers by application name first, which is better evidence than a crowd; then the largest first."""
    named = Counter((kind, s.identity.client) for s in sessions if (kind := pooler(s.identity.application)))
    crowds = defaultdict[str, list[Session]](list)
    for session in sessions:
        if session.identity.client and not pooler(session.identity.application):
            crowds[session.identity.client].append(session)
    found = [
        ProbablePooler(kind=kind, client=client, count=count, applications=1)
        for (kind, client), count in named.items()
    ]
    found += [
        ProbablePooler(kind=None, client=client, count=len(crowd), applications=_names(crowd))
        for client, crowd in crowds.items()
        if len(crowd) >= max(CROWD, _CROWD_SHARE * len(sessions))
    ]
    return tuple(
        sorted(found, key=lambda each: (each.kind is None, -each.count, each.kind or "", each.client or ""))
    )[:top]


def _names(sessions: Sequence[Session]) -> int:
    return len({session.identity.application for session in sessions})


UNKNOWN: Final = "unknown"
"""The state of a session that hides it."""

IDLING: Final = (IDLE, IN_TRANSACTION, ABORTED)
_IN_ORDER: Final = (ACTIVE, *IDLING)
_MOST_STATES: Final = 8
_MOST_WAITERS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup:
    """Sessions that have a name in common."""

    name: str | None
    count: int
    states: Mapping[str, int]
    oldest_idle_s: float | None
    """Of those that are idle, in a transaction or not; None if all are active."""

    @property
    def idling(self) -> int:
        """The sessions that are idle, in a transaction or not."""
        return sum(self.states.get(state, 0) for state in IDLING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The largest groups, and the sum of the others."""

    groups: tuple[UsageGroup, ...]
    more_groups: int = 0
    more_sessions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """A session that waits for another one."""

    pid: int
    session: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An open transaction that is idle, blocks other sessions, or delays vacuum."""

    pid: int
    session: Identity
    state: str | None
    open_s: float | None
    state_s: float | None
    waiting: int | None
    """Sessions that wait for it, directly or in a queue; None if unknown."""
    waiters: tuple[Waiter, ...] = ()
    """The first few of those that wait directly."""
    xid_age: int | None = None
    """Age of its oldest xid or xmin in transactions: vacuum cannot remove rows that died since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """The sessions that hold the slots of one server at one moment, counted."""

    server: str
    at: str | None
    openings: Openings
    sessions: int
    """Client sessions, walsenders not among them."""
    walsenders: int
    unreadable: int
    uncounted: int
    """Sessions that the prefilter left out: they are in no group."""
    states: Mapping[str, int]
    applications: Ranking
    roles: Ranking
    databases: Ranking
    clients: Ranking
    transactions: tuple[Transaction, ...]
    more_transactions: int
    poolers: tuple[ProbablePooler, ...]


def census(snapshot: Snapshot, *, top: int) -> Census:
    """Count the sessions of one snapshot; lists have at most `top` entries."""
    sessions = [session for session in snapshot.sessions if session.kind == CLIENT_BACKEND]
    transactions = _transactions(sessions, snapshot)

    def ranking(name: Callable[[Identity], str | None]) -> Ranking:
        return _ranking(sessions, name, snapshot.at, top)

    return Census(
        server=snapshot.server,
        at=isoformat(snapshot.at),
        openings=openings(snapshot.slots, sessions),
        sessions=len(sessions),
        walsenders=len(snapshot.sessions) - len(sessions),
        unreadable=snapshot.unreadable,
        uncounted=snapshot.left_out or 0,
        states=_states(sessions),
        applications=ranking(lambda who: who.application or None),
        roles=ranking(lambda who: who.role),
        databases=ranking(lambda who: who.database),
        clients=ranking(lambda who: who.client),
        transactions=tuple(transactions[:top]),
        more_transactions=max(len(transactions) - top, 0),
        poolers=probable_poolers(sessions, top=top),
    )


def shortened(counted: Census, *, top: int) -> Census:
    """The same census with lists of at most `top` entries."""
    return replace(
        counted,
        applications=_shortened(counted.applications, top),
        roles=_shortened(counted.roles, top),
        databases=_shortened(counted.databases, top),
        clients=_shortened(counted.clients, top),
        transactions=counted.transactions[:top],
        more_transactions=counted.more_transactions + len(counted.transactions[top:]),
        poolers=counted.poolers[:top],
    )


def _shortened(ranking: Ranking, top: int) -> Ranking:
    rest = ranking.groups[top:]
    return Ranking(
        groups=ranking.groups[:top],
        more_groups=ranking.more_groups + len(rest),
        more_sessions=ranking.more_sessions + sum(group.count for group in rest),
    )


def _states(sessions: Iterable[Session]) -> Mapping[str, int]:
    """Active sessions first, then idle ones; states that only a later version has come last."""
    counts = Counter(session.state or UNKNOWN for session in sessions)
    ours = {state: counts.pop(state) for state in _IN_ORDER if state in counts}
    return ours | dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_STATES])


def _ranking(
    sessions: Iterable[Session], name: Callable[[Identity], str | None], now: Timestamp, top: int
) -> Ranking:
    members = defaultdict[str | None, list[Session]](list)
    for session in sessions:
        members[name(session.identity)].append(session)
    # By name if counts are equal: the same order in every snapshot.
    ranked = sorted(members.items(), key=lambda item: (-len(item[1]), item[0] is None, item[0] or ""))
    return Ranking(
        groups=tuple(
            UsageGroup(name=key, count=len(them), states=_states(them), oldest_idle_s=_oldest_idle(them, now))
            for key, them in ranked[:top]
        ),
        more_groups=len(ranked[top:]),
        more_sessions=sum(len(them) for _, them in ranked[top:]),
    )


def _oldest_idle(sessions: Iterable[Session], now: Timestamp) -> float | None:
    ages = (_age(session.state_change, now) for session in sessions if session.state in IDLING)
    return max((age for age in ages if age is not None), default=None)


def _age(then: Timestamp | None, now: Timestamp) -> float | None:
    """In seconds; 0 for a moment in the future, which only a clock that was set can cause."""
    age = since(then, now)
    return None if age is None else max(seconds(age), 0.0)


def _transactions(sessions: Sequence[Session], snapshot: Snapshot) -> list[Transaction]:
    """Open transactions and blocking sessions: blocking ones first, then by age of the transaction."""
    waiters = snapshot.facts.waiters
    furthest = _furthest_back(sessions)
    queues = _queues(snapshot, sessions)
    found = [
        Transaction(
            pid=session.id.pid,
            session=session.identity,
            state=session.state,
            open_s=_age(session.xact_start, snapshot.at),
            state_s=_age(session.state_change, snapshot.at),
            waiting=None if waiters is None else waiters.get(session.id.pid, 0),
            waiters=tuple(queues[session.id.pid][:_MOST_WAITERS]),
            xid_age=session.xid_age,
        )
        for session in sessions
        if session.state in {IN_TRANSACTION, ABORTED}
        or (waiters or {}).get(session.id.pid)
        or session is furthest
    ]
    return sorted(found, key=lambda each: (not each.waiting, -(each.open_s or 0), each.pid))


def _furthest_back(sessions: Iterable[Session]) -> Session | None:
    """The session with the oldest xmin; of several, the one with the oldest transaction.

    Other sessions hold the same xmin because their snapshots include its transaction.
    """
    holding = [session for session in sessions if (session.xid_age or 0) > 1]
    began = sorted(
        holding, key=lambda session: (-(session.xid_age or 0), session.xact_start or 0, session.id)
    )
    return began[0] if began else None


def _queues(snapshot: Snapshot, sessions: Iterable[Session]) -> Mapping[int, list[Waiter]]:
    """The sessions that wait directly for each session."""
    names = {session.id.pid: session.identity for session in sessions}
    queues = defaultdict[int, list[Waiter]](list)
    for pid, blockers in sorted((snapshot.facts.blockers or {}).items()):
        for blocker in blockers if pid in names else ():
            queues[blocker].append(Waiter(pid=pid, session=names[pid]))
    return queues
