"""Sessions, snapshots and policies, built so that a test shows only what it is about."""

from dataclasses import replace
from datetime import datetime
from typing import Final, TypedDict, Unpack

from reaper.policy.decide import decide
from reaper.policy.match import Match
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Decision, Plan, Skip
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.selector import NO_KEYS, Glob, Selector
from reaper.policy.session import (
    CLIENT_BACKEND,
    IDLE,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import Timestamp, from_datetime, parse_duration


def instant(text: str) -> Timestamp:
    """The instant of an ISO 8601 text with its zone."""
    return from_datetime(datetime.fromisoformat(text))


NOW: Final = instant("2025-06-18T12:00:00+00:00")
"""A Wednesday noon."""


def ago(text: str, *, now: Timestamp = NOW) -> Timestamp:
    """The instant that lies so far back."""
    return Timestamp(now - parse_duration(text))


def later(instant: Timestamp, *, by: int) -> Timestamp:
    """So many microseconds after an instant."""
    return Timestamp(instant + by)


class Told(TypedDict, total=False):
    """What the server tells of a session; the ages as a policy file spells them."""

    role: str | None
    database: str | None
    application: str | None
    client: str | None
    kind: str
    superuser: bool
    state: str | None
    idle: str | None
    running: str | None
    in_transaction: str | None
    connected: str
    wait_event: str | None
    xid_age: int | None
    listens: bool
    starts_backup: bool


_USUAL: Final[Told] = {
    "role": "app_web",
    "database": "shop",
    "application": "web-1",
    "client": "10.2.0.7",
    "state": IDLE,
    "idle": "1h",
    "running": "1h",
    "connected": "2h",
}


def session(pid: int = 100, **told: Unpack[Told]) -> Session:
    """A web worker that has been idle for an hour, unless told otherwise."""
    row: Told = {**_USUAL, **told}
    return Session(
        id=SessionId(pid, ago(row["connected"])),
        identity=Identity(row["database"], row["role"], row["application"], row["client"]),
        kind=row.get("kind", CLIENT_BACKEND),
        superuser=row.get("superuser", False),
        state=row["state"],
        state_change=_since(row["idle"]),
        query_start=_since(row["running"]),
        xact_start=_since(row.get("in_transaction")),
        wait_event=row.get("wait_event"),
        xid_age=row.get("xid_age"),
        last_query_listens=row.get("listens", False),
        last_query_starts_backup=row.get("starts_backup", False),
    )


def _since(age: str | None) -> Timestamp | None:
    return None if age is None else ago(age)


def sessions(count: int, **told: Unpack[Told]) -> tuple[Session, ...]:
    """So many sessions that differ in their pid and, by a second each, in how long they have been idle."""
    return tuple(
        replace(one, state_change=Timestamp(one.state_change + 1_000_000 * rank))
        for rank in range(count)
        if (one := session(100 + rank, **told)).state_change is not None
    )


WATCHER: Final = Watcher(pid=1, role="reaper", superuser=False)
NO_FACTS: Final = Facts()
NOTHING_HELD: Final = Facts(advisory_lock_holders=frozenset(), waiters={})


def snapshot(*seen: Session, used: int = 10, at: Timestamp = NOW, facts: Facts = NOTHING_HELD) -> Snapshot:
    """A look at a server with 100 slots, where nobody holds a lock."""
    return Snapshot(
        server="orders",
        at=at,
        slots=Slots(total=103, reserved=3, used=used),
        watcher=WATCHER,
        sessions=seen,
        facts=facts,
    )


IDLE_10M: Final = Match(states=(IDLE,), idle_for=parse_duration("10m"))


def policy(name: str = "leaked", match: Match = IDLE_10M, *, mode: Mode = Mode.ENFORCE) -> Policy:
    """An enforcing policy for whoever has been idle for ten minutes; `replace` adds the rest."""
    return Policy(name=name, match=match, mode=mode)


def globs(*texts: str) -> tuple[Glob, ...]:
    """Patterns, as a policy file lists them."""
    return tuple(map(Glob, texts))


def plan(
    seen: Snapshot, *policies: Policy, protect: Selector = NO_KEYS, memory: Memory | None = None
) -> Plan:
    """What is decided when everybody was seen before, unless the memory says otherwise."""
    memory = Memory.of(seen) if memory is None else memory
    return decide(snapshot=seen, rules=Rules(policies=policies, protect=protect), memory=memory)


def decision(seen: Session, *policies: Policy, protect: Selector = NO_KEYS) -> Decision:
    """The answer for a session that is alone on its server."""
    (answer,) = plan(snapshot(seen), *policies, protect=protect).decisions
    return answer


def is_reaped(seen: Session, *policies: Policy) -> bool:
    """Whether a session that is alone on its server is condemned."""
    return isinstance(decision(seen, *policies), Candidate)


def skipped(answer: Decision) -> Skip:
    """The answer, which must be that the session lives."""
    assert isinstance(answer, Skip), answer
    return answer


def pids(decisions: tuple[Candidate, ...] | tuple[Skip, ...]) -> list[int]:
    """The pids of verdicts, in their order."""
    return [answer.session.id.pid for answer in decisions]


def reasons(decided: Plan) -> list[str]:
    """Every reason, in the order of sessions."""
    return [answer.reason for answer in decided.decisions]
