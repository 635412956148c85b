"""Protections: functions that return why a session is never touched, or None.

They protect sessions that look idle and are needed. Each has a name; a policy overrides one only by that name
under `override_protections`. `self` cannot be overridden at all.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from reaper.policy.selector import Glob, Selector
from reaper.policy.session import WALSENDER, Session, Snapshot

REAPER_APPLICATION: Final = "pg-reaper"
"""The application name of every connection that the reaper opens."""


_MAX_NAMES: Final = 2_048
"""The size of each cache: a client may use another application name each time."""


class Protection(NamedTuple):
    """A protection that applies: its name and its reason."""

    name: str
    reason: str


def _self(session: Session, snapshot: Snapshot) -> str | None:
    if session.id.pid == snapshot.watcher.pid:
        return "the reaper's own session"
    # The role must be the same too: any client can set this application name.
    if session.identity.role == snapshot.watcher.role and session.identity.application == REAPER_APPLICATION:
        return "another reaper's session"
    return None


def _replication(session: Session, _: Snapshot) -> str | None:
    return "a replication connection" if session.kind == WALSENDER else None


def _superusers(session: Session, snapshot: Snapshot) -> str | None:
    if session.superuser and not snapshot.watcher.superuser:
        return f"superuser {session.identity.role!r}, which only a superuser may terminate"
    return None


def _advisory_locks(session: Session, snapshot: Snapshot) -> str | None:
    holders = snapshot.facts.advisory_lock_holders
    if holders is None:
        return "it is not known whether it holds an advisory lock"
    return "holds advisory lock" if session.id.pid in holders else None


def _listeners(session: Session, _: Snapshot) -> str | None:
    return "its last query was LISTEN" if session.last_query_listens else None


_BACKUP_TOOLS: Final = tuple(
    Glob(text)
    for text in (
        *("pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pg_receivewal", "pg_probackup*"),
        *("[pP][gG][bB]ack[rR]est*", "barman*", "wal-g*", "pgcopydb*"),
    )
)


@lru_cache(maxsize=_MAX_NAMES)
def is_backup_tool(application: str | None) -> bool:
    """Whether this is the application name of a backup tool."""
    return any(tool.matches(application) for tool in _BACKUP_TOOLS)


def _backups(session: Session, _: Snapshot) -> str | None:
    if session.last_query_starts_backup:
        return "its last query started a backup"
    application = session.identity.application
    if is_backup_tool(application):
        return f"backup tool {application!r}"
    return None


def _sync_replication(session: Session, _: Snapshot) -> str | None:
    return "waits for synchronous replication" if session.wait_event == "SyncRep" else None


_MANAGED_ROLES: Final = tuple(
    Glob(text)
    for text in (
        *("rdsadmin", "rdsrepladmin", "rdstopmgr", "rdsproxyadmin"),
        *("cloudsqladmin", "cloudsqlagent", "cloudsqlimportexport", "cloudsqlreplica", "cloudsqllogical"),
        *("alloydbadmin", "alloydbagent", "azuresu", "azure_superuser", "azure_pg_admin", "replication"),
        *("supabase_admin", "supabase_*_admin", "supabase_read_only_user", "authenticator", "dashboard_user"),
        *("pgbouncer", "cloud_admin", "neon_service"),
    )
)


@lru_cache(maxsize=_MAX_NAMES)
def is_managed(role: str | None) -> bool:
    """Whether a managed service maintains the server by a role of this name."""
    return any(glob.matches(role) for glob in _MANAGED_ROLES)


def _managed_service_roles(session: Session, _: Snapshot) -> str | None:
    role = session.identity.role
    return f"managed-service role {role!r}" if is_managed(role) else None


_POOLER_NAMES: Final[Mapping[str, tuple[Glob, ...]]] = {
    "PgBouncer": (Glob("[pP]g[bB]ouncer*"),),
    "Odyssey": (Glob("[oO]dyssey*"),),
    "PgCat": (Glob("[pP]g[cC]at*"),),
    "Pgpool-II": (Glob("[pP]g[pP]ool*"),),
    "Supavisor": (Glob("[sS]upavisor*"),),
    "pgagroal": (Glob("pgagroal*"),),
    "PgDog": (Glob("pgdog*"),),
}


@lru_cache(maxsize=_MAX_NAMES)
def pooler(application: str | None) -> str | None:
    """The kind of pooler that uses this application name, or None."""
    for kind, globs in _POOLER_NAMES.items():
        if any(glob.matches(application) for glob in globs):
            return kind
    return None


def _poolers(session: Session, _: Snapshot) -> str | None:
    application = session.identity.application
    return f"pooler {application!r}" if pooler(application) else None


def is_known_name(name: str) -> bool:
    """Return True if a protection names exactly this application or role, so that it needs no alias."""
    return name == REAPER_APPLICATION or is_backup_tool(name) or is_managed(name) or bool(pooler(name))


SELF: Final = "self"
SYNC_REPLICATION: Final = "sync-replication"
BUILT_IN: Final[Mapping[str, Callable[[Session, Snapshot], str | None]]] = {
    SELF: _self,
    "replication": _replication,
    "superusers": _superusers,
    "listeners": _listeners,
    "backups": _backups,
    SYNC_REPLICATION: _sync_replication,
    "managed-service-roles": _managed_service_roles,
    "poolers": _poolers,
    "advisory-locks": _advisory_locks,
}
NEEDS_LOCKS: Final = "advisory-locks"
"""The protection that needs an expensive fact; it comes last, so that it is read only if no other applies."""

DESCRIPTIONS: Final[Mapping[str, str]] = {
    SELF: "the reaper's own sessions, and other reapers of the same role; cannot be overridden",
    "replication": "walsenders, idle ones too",
    "superusers": "roles that only a superuser may terminate, unless the reaper is one",
    "listeners": "sessions whose last query was LISTEN",
    "backups": "sessions that started a backup, and backup tools by application name",
    "sync-replication": "sessions that wait for a synchronous standby",
    "managed-service-roles": "roles by which a managed service maintains the server",
    "poolers": "server connections of PgBouncer and other poolers, by application name",
    "advisory-locks": "holders of advisory locks: leaders, migrations, job queues",
}
OVERRIDABLE: Final = tuple(name for name in BUILT_IN if name != SELF)


def protections_of(
    session: Session,
    snapshot: Snapshot,
    protect: Selector,
    overrides: frozenset[str] = frozenset(),
) -> Iterator[Protection]:
    """Every protection of this session that is not overridden; `protect` of the policy file first."""
    if hit := protect.first_hit(session.identity):
        yield Protection("protect", f"protect {hit}")
    for name, protection in BUILT_IN.items():
        overridden = name in overrides and name in OVERRIDABLE
        if not overridden and (reason := protection(session, snapshot)):
            yield Protection(name, reason)


def first_protection(
    session: Session, snapshot: Snapshot, protect: Selector, overrides: frozenset[str]
) -> Protection | None:
    """The first protection that is not overridden, or None."""
    return next(protections_of(session, snapshot, protect, overrides), None)
