"""Protections: functions that return why a session is never touched, or nothing.

They stand before the sessions that look idle and are not expendable. Each has a name, and a policy sets one
aside only by saying that name under `despite:`; `self` cannot be set aside at all.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from reaper.policy.poolers import pooler
from reaper.policy.selector import Glob, Selector
from reaper.policy.session import WALSENDER, Session, Snapshot

REAPER_APPLICATION: Final = "pg-reaper"
"""The application name of every connection of ours."""


_MOST_NAMES: Final = 2_048
"""So many answers are remembered: a client may call itself by another name each time."""


class Shield(NamedTuple):
    """A protection that applies: its name and its reason."""

    name: str
    reason: str


def _self(session: Session, snapshot: Snapshot) -> str | None:
    if session.id.pid == snapshot.watcher.pid:
        return "the reaper's own session"
    # By role as well: the name alone is the client's word, and anybody could hide behind it.
    if session.identity.role == snapshot.watcher.role and session.identity.application == REAPER_APPLICATION:
        return "another reaper's session"
    return None


def _replication(session: Session, _: Snapshot) -> str | None:
    return "a replication connection" if session.kind == WALSENDER else None


def _superusers(session: Session, snapshot: Snapshot) -> str | None:
    if session.superuser and not snapshot.watcher.superuser:
        return f"superuser {session.identity.role!r}, whom only a superuser may terminate"
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


@lru_cache(maxsize=_MOST_NAMES)
def is_backup_tool(application: str | None) -> bool:
    """Whether an application calls itself like a tool that makes backups."""
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


@lru_cache(maxsize=_MOST_NAMES)
def is_managed(role: str | None) -> bool:
    """Whether a managed service looks after the server by a role of this name."""
    return any(glob.matches(role) for glob in _MANAGED_ROLES)


def _managed_service_roles(session: Session, _: Snapshot) -> str | None:
    role = session.identity.role
    return f"managed-service role {role!r}" if is_managed(role) else None


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
"""The protection that needs a fact of its own; it stands last, so that the others are told first."""

DESCRIPTIONS: Final[Mapping[str, str]] = {
    SELF: "the reaper's own sessions, and other reapers of the same role; never set aside",
    "replication": "walsenders, idle ones too",
    "superusers": "roles that only a superuser may terminate, unless the reaper is one",
    "listeners": "sessions whose last query was LISTEN",
    "backups": "sessions that started a backup, and backup tools by application name",
    "sync-replication": "sessions that wait for a synchronous standby",
    "managed-service-roles": "roles by which a managed service looks after the server",
    "poolers": "server connections of PgBouncer and its kind, by application name",
    "advisory-locks": "holders of advisory locks: leaders, migrations, job queues",
}
SETTABLE: Final = tuple(name for name in BUILT_IN if name != SELF)


def shields(
    session: Session, snapshot: Snapshot, protect: Selector, despite: frozenset[str] = frozenset()
) -> Iterator[Shield]:
    """Every protection of this session that is not set aside, the policy file's own first."""
    if hit := protect.first_hit(session.identity):
        yield Shield("protect", f"protect {hit}")
    for name, protection in BUILT_IN.items():
        set_aside = name in despite and name in SETTABLE
        if not set_aside and (reason := protection(session, snapshot)):
            yield Shield(name, reason)


def shield(session: Session, snapshot: Snapshot, protect: Selector, despite: frozenset[str]) -> Shield | None:
    """The first protection that is not set aside, if any."""
    return next(shields(session, snapshot, protect, despite), None)
