"""What one look at a server shows: sessions, slots, and the moment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from reaper.policy.time import Instant

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
    """What a session is: never a pid alone, for pids are used again."""

    pid: int
    backend_start: Instant


class Identity(NamedTuple):
    """What a session says of itself, and all that a selector looks at."""

    database: str | None
    role: str | None
    application: str | None
    client: str | None
    """The client's address; nothing when it came through the server's own socket."""


LOCAL: Final = "local"
"""What stands for an address where there is none: the server's own socket."""


def whose(identity: Identity) -> str:
    """`web-1 app_web@shop 10.2.3.4`: a session as people name it."""
    application = identity.application or "(unnamed)"
    return f"{application} {identity.role}@{identity.database} {identity.client or LOCAL}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One backend as the server reported it; what the server did not tell is None."""

    id: SessionId
    identity: Identity
    kind: str = CLIENT_BACKEND
    role_oid: int | None = None
    superuser: bool = False
    client_port: int | None = None
    state: str | None = None
    state_change: Instant | None = None
    query_start: Instant | None = None
    xact_start: Instant | None = None
    wait_event: str | None = None
    xid_age: int | None = None
    """Transactions since the oldest one that this session keeps from vacuum."""
    last_query_listens: bool = False
    last_query_starts_backup: bool = False
    query: str | None = None
    """Only when the user asked for query text."""
    counted_from: Instant | None = None
    """No age is counted from before this moment: the server's clock was set meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The server's connection slots."""

    total: int
    reserved: int
    """Slots that ordinary roles cannot use."""
    used: int
    superuser_reserved: int | None = None
    """Of those reserved, for superusers alone; None is not known."""

    @property
    def usable(self) -> int:
        """How many sessions ordinary roles can open."""
        return max(self.total - self.reserved, 1)

    @property
    def share_used(self) -> float:
        """The used share of what ordinary roles can use; above 1 when reserved slots are in use."""
        return self.used / self.usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """The reaper's own session, which took the snapshot."""

    pid: int
    role: str
    superuser: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What costs more than a look, and is asked for only when a candidate needs it; None is not known."""

    advisory_lock_holders: frozenset[int] | None = None
    waiters: Mapping[int, int] | None = None
    """For each pid that holds up others, how many sessions wait for it, directly or in a queue."""
    blockers: Mapping[int, frozenset[int]] | None = None
    """For each pid that waits for a lock, who holds it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One observation of one server."""

    server: str
    at: Instant
    slots: Slots
    watcher: Watcher
    sessions: tuple[Session, ...]
    young: int | None = None
    """Client sessions that were only counted: no policy can mean them yet, or at all; None: all are shown."""
    unreadable: int = 0
    """Rows whose state or age the server hid from us: nobody there is ever touched."""
    facts: Facts = Facts()

    def counted_from(self, moment: Instant) -> "Snapshot":
        """The same sessions, their ages counted from this moment at the earliest."""
        return replace(self, sessions=tuple(replace(each, counted_from=moment) for each in self.sessions))

    @property
    def clients(self) -> int:
        """How many client sessions there are; walsenders are none."""
        return sum(session.kind == CLIENT_BACKEND for session in self.sessions) + (self.young or 0)
