"""Clients: monitoring tools, superusers, sessions without a name, and clients that no longer exist."""

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final

from reaper.insight.advice.evidence import ApplicationSessions, Evidence
from reaper.insight.advice.finding import (
    Confidence,
    Finding,
    Fix,
    Urgency,
    about,
    identifier,
    listed,
    literal,
)
from reaper.insight.advice.known_tools import is_monitoring, is_nameless
from reaper.policy.protections import is_managed
from reaper.policy.session import ACTIVE, Session
from reaper.policy.text import counted
from reaper.policy.time import SECOND, Span

# A monitoring tool keeps one session, or one for each database; more are a mistake in its configuration.
_FEW_MONITORING: Final = 5
_FEW_SUPERUSERS: Final = 3
_FEW_NAMELESS: Final = 5
_NAMELESS_SHARE: Final = 0.2
_MAX_ROLES: Final = 3
_FEW_DEAD: Final = 3
_LATE_KEEPALIVE: Final = 1_800
"""Seconds; a shorter keepalive is early enough."""
_PROBES: Final = 11 * 60
"""Seconds of Linux's default probes: nine of them, 75 seconds apart."""
_CHECKS_SINCE: Final = 14


def monitoring(evidence: Evidence) -> Iterator[Finding]:
    """Each monitoring tool with more sessions than it can need."""
    for each in evidence.applications:
        databases = len(each.databases)
        allowed = max(_FEW_MONITORING, databases + 2)
        if not is_monitoring(each.id.name) or each.count <= allowed:
            continue
        alone = all(is_monitoring(other.id.name) for other in evidence.of_role(each.id.role))
        title = f"{each.id.title} monitors the server with {counted(each.count, 'session')}"
        seen = (
            f"{counted(each.count, 'session')} in {counted(databases, 'database')}, from "
            f"{counted(len(each.clients), 'address', 'addresses')}; {len(each.long_idle):,} of them "
            "have been idle for long"
        )
        fixes = tuple(_monitoring_fixes(each.id.role, allowed, alone=alone and not each.superuser))
        yield Finding(
            "monitoring", Urgency.WORTH, Confidence.LIKELY, title, (seen,), fixes, *each.id, each.count
        )


def _monitoring_fixes(role: str, allowed: int, *, alone: bool) -> Iterator[Fix]:
    yield Fix(
        "configure it to keep its connections between two rounds, at most one for each database",
        cost="a round takes longer when it queries one database after the other",
    )
    if alone and identifier(role):
        yield Fix(
            "and limit it on the server",
            sql=f"ALTER ROLE {identifier(role)} CONNECTION LIMIT {allowed};",
            cost="beyond the limit the tool is refused (53300), and shows gaps or an alarm",
        )


def superusers(evidence: Evidence) -> Iterator[Finding]:
    """Applications that log in as a superuser."""
    found = [each for each in evidence.ordinary if each.superuser]
    count = sum(each.count for each in found)
    if count < _FEW_SUPERUSERS:
        return
    title = f"{counted(count, 'application session')} logged in as a superuser"
    seen = (
        listed([f"{each.id.short} {each.count:,}" for each in found]),
        (
            "they can use the reserved slots; no connection limit applies to them, and "
            "a reaper with the least rights cannot terminate them"
        ),
    )
    fix = Fix(
        "let them log in with a role that has the rights they need",
        cost="every right that they used as a superuser has to be granted",
    )
    yield Finding("superusers", Urgency.WORTH, Confidence.COUNTED, title, seen, (fix,), weight=count)


def names(evidence: Evidence) -> Iterator[Finding]:
    """A large share of sessions without an application name, or with that of their driver."""
    nameless = [
        each for each in evidence.applications if is_nameless(each.id.name) and not is_managed(each.id.role)
    ]
    total = sum(each.count for each in evidence.applications)
    count = sum(each.count for each in nameless)
    if count < _FEW_NAMELESS or count < total * _NAMELESS_SHARE:
        return
    roles = _roles(nameless)
    drivers = sorted({each.id.name for each in nameless} - {""})
    title = f"{count:,} of {counted(total, 'session')} ({count / total:.0%}) have no application name"
    seen = (
        f"roles: {listed([f'{role!r} {number:,}' for role, number in roles])}",
        *((f"with the name of their driver: {', '.join(map(repr, drivers[:5]))}",) if drivers else ()),
        "a policy can tell them apart only by role, database and address",
    )
    fixes = (
        Fix(
            "in the connection string of each application",
            setting="application_name=orders (libpq, psycopg, pgx), ApplicationName=orders (JDBC)",
        ),
        *_name_by_role([role for role, _ in roles[:_MAX_ROLES]] if evidence.facts else [], bool(drivers)),
    )
    yield Finding("names", Urgency.WORTH, Confidence.COUNTED, title, seen, fixes, weight=count)


def _roles(applications: Iterable[ApplicationSessions]) -> list[tuple[str, int]]:
    roles = Counter[str]()
    for each in applications:
        roles[each.id.role] += each.count
    return roles.most_common()


def _name_by_role(roles: list[str], drivers: bool) -> Iterator[Fix]:  # noqa: FBT001 (one private caller)
    statements = [
        f"ALTER ROLE {quoted} SET application_name = {literal(role)};"
        for role in roles
        if (quoted := identifier(role))
    ]
    if statements:
        yield Fix(
            "where a role belongs to one application: by role, for new sessions",
            sql=" ".join(statements),
            cost="a name that the client sets itself, as drivers do, takes precedence" if drivers else "",
        )


def dead_clients(evidence: Evidence) -> Iterator[Finding]:
    """Keepalives so late that a client that disappeared keeps its slot for hours."""
    late = evidence.facts.number("tcp_keepalives_idle") if evidence.facts else None
    remote = [each for each in evidence.last.sessions if _is_remote(each) and each.state != ACTIVE]
    silent = evidence.lasting(remote, evidence.idle_limit)
    if late is None or late < _LATE_KEEPALIVE or len(silent) < _FEW_DEAD:
        return
    title = f"a client whose machine disappeared keeps its slot for {about((late + _PROBES) * SECOND)}"
    seen = (
        (
            f"{counted(len(silent), 'session')} from other machines sent nothing for "
            f"{about(evidence.idle_limit)}; the server does not know which of these clients still exist"
        ),
        f"tcp_keepalives_idle is {about(late * SECOND)}: the server checks only after that time",
    )
    fix = Fix(
        "check after a minute of silence, and disconnect after another",
        sql=(
            "ALTER SYSTEM SET tcp_keepalives_idle = 60;\n"
            "ALTER SYSTEM SET tcp_keepalives_interval = 10;\n"
            "ALTER SYSTEM SET tcp_keepalives_count = 6;\n"
            "SELECT pg_reload_conf();"
        ),
        cost=(
            "a packet a minute for each silent session; a network outage of two minutes disconnects "
            "them; existing sessions keep their old values"
        ),
    )
    yield Finding("dead clients", Urgency.WORTH, Confidence.COUNTED, title, seen, (fix,), weight=len(silent))


def orphaned_statements(evidence: Evidence) -> Iterator[Finding]:
    """Long statements that the server would not cancel if their client disappeared."""
    facts = evidence.facts
    if facts is None or facts.major < _CHECKS_SINCE:
        return
    long = [each for each in evidence.last.sessions if _runs_long(each, evidence)]
    if not long or facts.number("client_connection_check_interval") != 0:
        return
    running = counted(len(long), "statement from another machine has", "statements from other machines have")
    title = f"{running} run for more than {about(evidence.idle_limit)}, and would run on without a client"
    seen = (
        "client_connection_check_interval is 0: the server notices that a client is gone only when "
        "it sends the result"
    )
    fix = Fix(
        "check every ten seconds that the client still exists",
        sql="ALTER SYSTEM SET client_connection_check_interval = '10s';\nSELECT pg_reload_conf();",
        cost=(
            "a system call every ten seconds for each running statement; works on Linux, macOS, "
            "illumos and BSD"
        ),
    )
    yield Finding(
        "dead clients", Urgency.WORTH, Confidence.POSSIBLE, title, (seen,), (fix,), weight=len(long)
    )


def _runs_long(session: Session, evidence: Evidence) -> bool:
    age = evidence.age(session.query_start) or Span(0)
    return session.state == ACTIVE and age >= evidence.idle_limit and _is_remote(session)


def _is_remote(session: Session) -> bool:
    try:
        return session.identity.client is not None and not ip_address(session.identity.client).is_loopback
    except ValueError:
        return False
