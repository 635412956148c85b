"""Clients that are no more: how soon the server notices."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from reaper.insight.advice.evidence import Evidence, is_monitoring
from reaper.insight.advice.finding import Cure, Finding, Sure, Urgency, about, identifier, many, who
from reaper.policy.session import ACTIVE, Session
from reaper.policy.time import SECOND, Instant, Span, since

FEWEST: Final = 5
"""A tool keeps one session, or one for each database; more are a mistake in its configuration."""


def monitoring(evidence: Evidence) -> Iterator[Finding]:
    """Each such tool with more sessions than it can need."""
    for crowd in evidence.crowds:
        databases = len(crowd.databases)
        allowed = max(FEWEST, databases + 2)
        if not is_monitoring(crowd.key.application) or crowd.count <= allowed:
            continue
        alone = all(
            is_monitoring(each.key.application) for each in evidence.crowds if each.key.role == crowd.key.role
        )
        yield Finding(
            topic="monitoring",
            urgency=Urgency.WORTH,
            sure=Sure.LIKELY,
            says=f"{who(crowd.key)} watches the server with {many(crowd.count, 'session')}",
            evidence=(
                (
                    f"{many(crowd.count, 'session')} in {many(databases, 'database')}, from "
                    f"{many(len(crowd.instances), 'address', 'addresses')}; {len(crowd.quiet):,} of them "
                    "idle for long"
                ),
            ),
            cures=tuple(_cures(crowd.key.role, allowed, alone=alone and not crowd.superuser)),
            role=crowd.key.role,
            application=crowd.key.application,
            weight=crowd.count,
        )


def _cures(role: str, allowed: int, *, alone: bool) -> Iterator[Cure]:
    yield Cure(
        does="let it keep its connections between two rounds, and take one for each database at the most",
        costs="its rounds take longer when it asks one database after the other",
    )
    if alone and identifier(role):
        yield Cure(
            does="and bound it from the server's side",
            sql=f"ALTER ROLE {identifier(role)} CONNECTION LIMIT {allowed};",
            costs="beyond it the tool is refused (53300), and shows gaps or an alarm",
        )


_LATE: Final = 1_800
"""Seconds: sooner than that is soon enough for most."""
_PROBES: Final = 11 * 60
"""Seconds that the probes of Linux take by themselves: nine of them, 75 seconds apart."""
_FEWEST: Final = 3
_CHECKS_SINCE: Final = 14


def dead_clients(evidence: Evidence) -> Iterator[Finding]:
    """Keepalives so late that a client which vanished keeps its slot for hours."""
    late = evidence.ground.number("tcp_keepalives_idle") if evidence.ground else None
    remote = [s for s in evidence.last.sessions if _is_remote(s) and s.state != ACTIVE]
    quiet = [s for s in remote if _lasts(s.state_change, evidence.quiet, evidence)]
    if late is None or late < _LATE or len(quiet) < _FEWEST:
        return
    yield Finding(
        topic="dead clients",
        urgency=Urgency.WORTH,
        sure=Sure.COUNTED,
        says=f"a client whose machine is gone keeps its slot for {about((late + _PROBES) * SECOND)}",
        evidence=(
            (
                f"{many(len(quiet), 'session')} from other machines said nothing for "
                f"{about(evidence.quiet)}; which of these clients are still there, the server does not know"
            ),
            f"tcp_keepalives_idle is {about(late * SECOND)}, and only then it begins to ask",
        ),
        cures=(
            Cure(
                does="ask after a minute of silence, and give up after another",
                sql=(
                    "ALTER SYSTEM SET tcp_keepalives_idle = 60;\n"
                    "ALTER SYSTEM SET tcp_keepalives_interval = 10;\n"
                    "ALTER SYSTEM SET tcp_keepalives_count = 6;\n"
                    "SELECT pg_reload_conf();"
                ),
                costs=(
                    "a packet a minute for each silent session; a network that is away for two minutes "
                    "ends them; sessions that are there already keep what they began with"
                ),
            ),
        ),
        weight=len(quiet),
    )


def orphaned_statements(evidence: Evidence) -> Iterator[Finding]:
    """Long statements whose client may have gone, which the server would not notice before they end."""
    ground = evidence.ground
    if ground is None or ground.major < _CHECKS_SINCE:
        return
    running = [s for s in evidence.last.sessions if _is_remote(s) and s.state == ACTIVE]
    long = [s for s in running if _lasts(s.query_start, evidence.quiet, evidence)]
    if not long or ground.number("client_connection_check_interval") != 0:
        return
    count = many(len(long), "statement from another machine runs", "statements from other machines run")
    yield Finding(
        topic="dead clients",
        urgency=Urgency.WORTH,
        sure=Sure.POSSIBLE,
        says=f"{count} for more than {about(evidence.quiet)}, and would run on without a client",
        evidence=(
            (
                "client_connection_check_interval is 0: that a client is gone, the server learns when it "
                "sends the result"
            ),
        ),
        cures=(
            Cure(
                does="look every ten seconds whether the client is still there",
                sql="ALTER SYSTEM SET client_connection_check_interval = '10s';\nSELECT pg_reload_conf();",
                costs=(
                    "a system call every ten seconds for each running statement; works on Linux, macOS, "
                    "illumos and BSD"
                ),
            ),
        ),
        weight=len(long),
    )


def _is_remote(session: Session) -> bool:
    try:
        return session.identity.client is not None and not ip_address(session.identity.client).is_loopback
    except ValueError:
        return False


def _lasts(began: Instant | None, limit: Span, evidence: Evidence) -> bool:
    age = since(began, evidence.last.at)
    return age is not None and age >= limit
