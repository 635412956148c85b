"""What a snapshot of a server contains: sessions, slots, and the time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from reaper.policy.time import Timestamp

CLIENT_BACKEND: Final = "client backend"
WALSENDER: Final = "walsender"
KINDS: Final = (CLIENT_BACKEND, WALSENDER)
"""The kinds of backend that can be judged; a walsender only by a policy that names `replication`."""

IDLE: Final = "idle"
IN_TRANSACTION: Final = "idle in transaction"
ABORTED: Final = "idle in transaction (aborted)"
ACTIVE: Final = "active"
STATES: Final = (IDLE, IN_TRANSACTION, ABORTED, ACTIVE)


class SessionId(NamedTuple):
    """The identity of a session: never the pid alone, because pids are reused."""

    pid: int
    backend_start: Timestamp


class Identity(NamedTuple):
    """The names and the address of a session: all that a selector compares."""

    database: str | None
    role: str | None
    application: str | None
    client: str | None
    """The client's address; None for the server's own socket."""


LOCAL: Final = "local"
"""Written instead of an address for the server's own socket."""


def session_words(identity: Identity) -> str:
    """`web-1 app_web@shop 10.2.3.4`: a session for a person."""
    application = identity.application or "(unnamed)"
    return f"{application} {identity.role}@{identity.database} {identity.client or LOCAL}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One backend as the server reported it; None for what the server does not show."""

    id: SessionId
    identity: Identity
    kind: str = CLIENT_BACKEND
    role_oid: int | None = None
    superuser: bool = False
    client_port: int | None = None
    state: str | None = None
    state_change: Timestamp | None = None
    query_start: Timestamp | None = None
    xact_start: Timestamp | None = None
    wait_event: str | None = None
    xid_age: int | None = None
    """Transactions since the oldest one that vacuum must keep for this session."""
    last_query_listens: bool = False
    last_query_starts_backup: bool = False
    query: str | None = None
    """Only when the user asked for query text."""
    counted_from: Timestamp | None = None
    """Ages are counted from this moment at the earliest: the server's clock was set meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The server's connection slots."""

    total: int
    reserved: int
    """Slots that ordinary roles cannot use."""
    used: int
    superuser_reserved: int | None = None
    """Of those reserved, for superusers only; None if not known."""

    @property
    def usable(self) -> int:
        """The slots that ordinary roles can use."""
        return max(self.total - self.reserved, 1)

    @property
    def share_used(self) -> float:
        """The used share of the usable slots; above 1 if reserved slots are in use."""
        return self.used / self.usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """The reaper's own session, which took the snapshot."""

    pid: int
    role: str
    superuser: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts that are read only when a candidate needs them; None if not known."""

    advisory_lock_holders: frozenset[int] | None = None
    waiters: Mapping[int, int] | None = None
    """For each pid that blocks others, how many sessions wait for it, directly or in a queue."""
    blockers: Mapping[int, frozenset[int]] | None = None
    """For each pid that waits for a lock, the pids that block it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One observation of one server."""

    server: str
    at: Timestamp
    slots: Slots
    watcher: Watcher
    sessions: tuple[Session, ...]
    left_out: int | None = None
    """Client sessions that the prefilter left out and only counted; None without a prefilter."""
    unreadable: int = 0
    """Sessions whose state or age the server hides: they are never touched."""
    facts: Facts = Facts()

    def counted_from(self, moment: Timestamp) -> "Snapshot":
        """The same sessions, their ages counted from this moment at the earliest."""
        return replace(self, sessions=tuple(replace(each, counted_from=moment) for each in self.sessions))

    @property
    def clients(self) -> int:
        """The number of client sessions, without walsenders."""
        return sum(session.kind == CLIENT_BACKEND for session in self.sessions) + (self.left_out or 0)
