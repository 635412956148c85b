"""Clients: monitoring tools, superusers, sessions without a name, and clients that no longer exist."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from reaper.insight.advice.evidence import Evidence, lasting
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
from reaper.policy.text import counted, percent
from reaper.policy.time import SECOND, Duration

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
        addresses = counted(len(each.clients), "address", "addresses")
        idle = f"{len(each.long_idle):,} of them have been idle for long"
        seen = (f"they are in {counted(databases, 'database')}, from {addresses}; {idle}",)
        fixes = tuple(_monitoring_fixes(each.id.role, allowed, alone=alone and not each.superuser))
        yield Finding("monitoring", Urgency.WORTH, Confidence.LIKELY, title, seen, fixes, *each.id)


def _monitoring_fixes(role: str, allowed: int, *, alone: bool) -> Iterator[Fix]:
    yield Fix(
        "configure it to keep its connections between two rounds, at most one for each database",
        cost="a round takes longer when it queries one database after the other",
    )
    if alone and (quoted := identifier(role)):
        yield Fix(
            "and limit it on the server",
            sql=f"ALTER ROLE {quoted} CONNECTION LIMIT {allowed};",
            cost="beyond the limit the tool is refused (error 53300), and shows gaps or an alarm",
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
        "they can use the reserved slots, and no connection limit applies to them",
        "only a superuser can terminate them: a reaper with the least rights cannot",
    )
    fix = Fix(
        "let them log in with a role that has the rights they need",
        cost="every right that they used as a superuser has to be granted",
    )
    yield Finding("superusers", Urgency.WORTH, Confidence.COUNTED, title, seen, (fix,))


def names(evidence: Evidence) -> Iterator[Finding]:
    """A large share of sessions without an application name, or with that of their driver."""
    nameless = [
        each for each in evidence.applications if is_nameless(each.id.name) and not is_managed(each.id.role)
    ]
    total = sum(each.count for each in evidence.applications)
    count = sum(each.count for each in nameless)
    if count < max(_FEW_NAMELESS, total * _NAMELESS_SHARE):
        return
    by_role = Counter[str]()
    for each in nameless:
        by_role[each.id.role] += each.count
    roles = by_role.most_common()
    drivers = sorted({each.id.name for each in nameless} - {""})
    title = f"{count:,} of {counted(total, 'session')} ({percent(count / total)}) have no application name"
    seen = [f"roles: {listed([f'{role!r} {number:,}' for role, number in roles])}"]
    seen += [f"with the name of their driver: {', '.join(map(repr, drivers[:5]))}"] if drivers else []
    seen.append("a policy can tell them apart only by role, database and address")
    fixes = [
        Fix(
            "in the connection string of each application",
            setting="application_name=orders (libpq, psycopg, pgx)\nApplicationName=orders (JDBC)",
        )
    ]
    if evidence.facts and (named := [role for role, _ in roles[:_MAX_ROLES] if identifier(role)]):
        statements = (
            f"ALTER ROLE {identifier(role)} SET application_name = {literal(role)};" for role in named
        )
        cost = "a name that the client sets itself, as drivers do, takes precedence" if drivers else ""
        action = "if a role belongs to one application: by role, for new sessions"
        fixes.append(Fix(action, "\n".join(statements), cost=cost))
    yield Finding("names", Urgency.WORTH, Confidence.COUNTED, title, tuple(seen), tuple(fixes))


def dead_clients(evidence: Evidence) -> Iterator[Finding]:
    """Keepalives so late that a client that disappeared keeps its slot for hours."""
    late = evidence.facts.number("tcp_keepalives_idle") if evidence.facts else None
    remote = [each for each in evidence.last.sessions if _is_remote(each) and each.state != ACTIVE]
    silent = lasting(evidence.idle_limit, remote, evidence.last.at)
    if late is None or late < _LATE_KEEPALIVE or len(silent) < _FEW_DEAD:
        return
    title = f"a client whose machine disappeared keeps its slot for {about((late + _PROBES) * SECOND)}"
    sessions = f"{counted(len(silent), 'session')} from other machines"
    seen = (
        f"{sessions} sent nothing for {about(evidence.idle_limit)}: some of their clients may be gone",
        f"tcp_keepalives_idle is {about(late * SECOND)}: the server checks only after that time",
    )
    fix = Fix(
        "check after a minute of silence, and disconnect after another",
        sql="ALTER SYSTEM SET tcp_keepalives_idle = 60;\nALTER SYSTEM SET tcp_keepalives_interval = 10;\n"
        "ALTER SYSTEM SET tcp_keepalives_count = 6;\nSELECT pg_reload_conf();",
        cost="a packet a minute for each silent session; a network outage of two minutes disconnects it",
    )
    yield Finding("dead clients", Urgency.WORTH, Confidence.COUNTED, title, seen, (fix,))


def orphaned_statements(evidence: Evidence) -> Iterator[Finding]:
    """Long statements that the server would not cancel if their client disappeared."""
    facts = evidence.facts
    if facts is None or facts.major < _CHECKS_SINCE:
        return
    long = [each for each in evidence.last.sessions if _runs_long(each, evidence)]
    if not long or facts.number("client_connection_check_interval") != 0:
        return
    running = counted(len(long), "statement from another machine has", "statements from other machines have")
    title = f"{running} run for more than {about(evidence.idle_limit)}, and would continue without a client"
    seen = "client_connection_check_interval is 0: a lost client is noticed only when the result is sent"
    fix = Fix(
        "check every ten seconds that the client still exists",
        sql="ALTER SYSTEM SET client_connection_check_interval = '10s';\nSELECT pg_reload_conf();",
        cost="a system call every ten seconds for each running statement; on Linux, macOS, illumos and BSD",
    )
    yield Finding("dead clients", Urgency.WORTH, Confidence.POSSIBLE, title, (seen,), (fix,))


def _runs_long(session: Session, evidence: Evidence) -> bool:
    age = evidence.age(session.query_start) or Duration(0)
    return session.state == ACTIVE and age >= evidence.idle_limit and _is_remote(session)


def _is_remote(session: Session) -> bool:
    try:
        return session.identity.client is not None and not ip_address(session.identity.client).is_loopback
    except ValueError:
        return False
