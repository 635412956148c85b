"""Servers in the situations that advice is about, each built from snapshots."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Unpack

from reaper.insight.advice import EvidenceCollector, advise
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Finding
from reaper.insight.advice.server_facts import RoleFacts, ServerFacts
from reaper.policy.session import Facts, Session, Snapshot
from reaper.policy.time import Timestamp, parse_duration
from tests.unit.policy.build import NOTHING_HELD, NOW, Told, session, snapshot

_SETTINGS: Final = {
    "tcp_keepalives_idle": "60",
    "client_connection_check_interval": "10000",
    "idle_in_transaction_session_timeout": "0",
    "work_mem": "4096",
    "superuser_reserved_connections": "3",
    "reserved_connections": "2",
}
_CAME_WITH: Final = {"idle_session_timeout": 14, "transaction_timeout": 17}


def ground(
    *roles: RoleFacts, major: int = 17, opened: int | None = 1_000, after: str = "0s", **settings: str
) -> ServerFacts:
    """A server of this major with good settings, unless given otherwise."""
    timeouts = {name: "0" for name, since in _CAME_WITH.items() if major >= since}
    return ServerFacts(
        at=Timestamp(NOW + parse_duration(after)),
        major=major,
        settings={**_SETTINGS, **timeouts, **settings},
        roles={role.name: role for role in roles},
        opened=opened,
    )


def role(name: str = "app_web", *, limit: int = -1, superuser: bool = False) -> RoleFacts:
    """An ordinary role without a limit."""
    return RoleFacts(name=name, limit=limit, superuser=superuser)


def look(seen: Iterable[Session], *, after: str = "0s", facts: Facts = NOTHING_HELD) -> Snapshot:
    """A snapshot of a server with a hundred slots, this time after noon."""
    sessions = tuple(seen)
    return snapshot(*sessions, used=len(sessions), at=Timestamp(NOW + parse_duration(after)), facts=facts)


def evidence(
    *looks: Snapshot, ground: ServerFacts | None = None, before: ServerFacts | None = None
) -> Evidence:
    """The evidence of these snapshots."""
    collector = EvidenceCollector()
    for each in looks:
        collector.add(each)
    return collector.evidence(facts=ground, before=before)


def leak(count: int, *, first: int = 1_000, **fields: Unpack[Told]) -> list[Session]:
    """Sessions that one client opened ten minutes apart and used for a second each."""
    return [_opened(session(first + rank, **fields), f"{10 * (rank + 2)}m") for rank in range(count)]


def _opened(one: Session, age: str) -> Session:
    opened = Timestamp(NOW - parse_duration(age))
    last = Timestamp(opened + 1_000_000)
    return replace(one, id=one.id._replace(backend_start=opened), state_change=last, query_start=last)


def pool(count: int, *, first: int = 2_000, **fields: Unpack[Told]) -> list[Session]:
    """Sessions that were opened together two hours ago and have been idle for an hour."""
    return [session(first + rank, **fields) for rank in range(count)]


def busy(count: int, *, first: int = 2_000, **fields: Unpack[Told]) -> list[Session]:
    """Sessions that were used a second ago."""
    fields["idle"] = "1s"
    return pool(count, first=first, **fields)


def used(seen: Iterable[Session], *, after: str) -> list[Session]:
    """The same sessions, each used a moment before."""
    now = Timestamp(NOW + parse_duration(after) - 1)
    return [replace(one, state_change=now, query_start=now) for one in seen]


def findings(seen: Evidence, topic: str) -> Sequence[Finding]:
    """The findings of a topic."""
    return [found for found in advise(seen) if found.topic == topic]


def topics(seen: Evidence) -> set[str]:
    """The topics of all findings."""
    return {found.topic for found in advise(seen)}


def sql(found: Finding) -> str:
    """Every statement that a finding proposes."""
    return "\n".join(fix.sql for fix in found.fixes if fix.sql)
