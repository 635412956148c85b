"""Overviews for the pages: a usual day, full slots, many servers, no snapshot, hostile names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from reaper.insight.usage.census import census
from reaper.insight.usage.trend import BEAT_SECONDS, BEATS, Trends, Usage
from reaper.policy.session import ACTIVE, IN_TRANSACTION, Facts, Identity, Session, Slots
from reaper.telemetry.http.views import (
    AssessmentLine,
    DueLine,
    GuardedPool,
    Overview,
    PolicyLine,
    RecentEvent,
    ServerLine,
    ServerView,
)
from tests.unit.policy.build import session, sessions, snapshot

TOP: Final = 12
HOSTILE: Final = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "\"><svg onload=alert(1)>'`",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eevil\u2066\u2028",
    "two\nlines\r\n",
    "</td></tr></table></body>",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "é" * 31 + r"\xc3",
    "W" * 63,
)


def usage(*seen: Session, total: int = 100, used: int | None = None, name: str = "orders") -> Usage:
    """A census of these sessions, and ten minutes in which they came one by one."""
    held = Slots(total=total, reserved=5, used=len(seen) if used is None else used, superuser_reserved=3)
    waiting = [one.id.pid for one in seen if one.state == ACTIVE][:2]
    holders = [one.id.pid for one in seen if one.state == IN_TRANSACTION][:1]
    blockers = {pid: frozenset(holders) for pid in waiting if holders}
    facts = Facts(waiters={holders[0]: len(blockers)} if blockers else {}, blockers=blockers)
    looks = [replace(snapshot(*seen[: 1 + beat * len(seen) // BEATS]), server=name) for beat in range(BEATS)]
    trends = Trends()
    for beat, look in enumerate(looks):
        grown = replace(held, used=held.used * (beat + 1) // BEATS)
        trends.note(census(replace(look, slots=grown), top=TOP), beat * BEAT_SECONDS)
    last = replace(snapshot(*seen, facts=facts), slots=held, server=name)
    return trends.usage(census(last, top=TOP), (BEATS - 1) * BEAT_SECONDS)


def a_day_like_any_other(count: int = 40) -> tuple[Session, ...]:
    """Web workers, some of them active, a forgotten transaction, and a pooler."""
    return (
        *sessions(count, application="web-1"),
        *(session(300 + n, application="web-2", state=ACTIVE, client="10.2.0.8") for n in range(6)),
        session(400, application="nightly", state=IN_TRANSACTION, in_transaction="2h", xid_age=1_234_567),
        *(session(500 + n, application="pgbouncer", client="10.9.0.1", database="billing") for n in range(4)),
        session(600, application="", role="analyst", client=None, idle="3d"),
    )


def named(names: Sequence[str]) -> tuple[Session, ...]:
    """Sessions with each of these names in every field."""
    return tuple(
        replace(
            session(100 + number, state=IN_TRANSACTION, in_transaction="1h"),
            identity=Identity(database=name, role=name, application=name, client="10.2.0.7"),
        )
        for number, name in enumerate(names)
    )


def line(name: str = "orders", *, used: int | None = 52, state: str = "working", why: str = "") -> ServerLine:
    """One server in short."""
    trend = tuple(None if used is None or n < 20 else used * n // 60 for n in range(BEATS))
    total = None if used is None else 100
    usable = None if used is None else 95
    return ServerLine(name=name, state=state, why=why, total=total, usable=usable, used=used, trend=trend)


def view(of: Usage | None, *, name: str = "orders", policy: str = "leaked", reason: str = "") -> ServerView:
    """One server in full."""
    identity = Identity("shop", "app_web", reason or "web-1", "10.2.0.7")
    return ServerView(
        name=name,
        usage=of,
        seen_s_ago=None if of is None else 0.4,
        next_cycle_s=3.2,
        soonest=(
            DueLine(pid=4711, session=identity, state="idle", policy=policy, mode="enforce", due_in_s=1.5),
            DueLine(pid=4712, session=identity, state="idle", policy=policy, mode="enforce", due_in_s=90.0),
        ),
        policies=(
            PolicyLine(
                name=policy,
                mode="enforce",
                description=None,
                matching=3,
                tripped=False,
                outcomes={"terminated": 12, "changed": 1},
            ),
            PolicyLine(
                name="consoles", mode="dry-run", description=None, matching=None, tripped=True, outcomes={}
            ),
        ),
    )


def event(text: str = "idle 12m31s, limit 10m", *, outcome: str = "terminated") -> RecentEvent:
    """A termination, or another outcome."""
    return RecentEvent(
        at="2025-06-18T11:59:07.123456Z",
        server="orders",
        policy="leaked",
        mode="enforce",
        outcome=outcome,
        pid=4711,
        session=Identity("shop", "app_web", text, "10.2.0.7"),
        reason=text,
    )


def overview(
    shown: ServerView | None,
    *servers: ServerLine,
    recent_events: Sequence[RecentEvent] = (),
    dry_run: bool = False,
    reloaded: bool = True,
    assessments: Sequence[AssessmentLine] = (),
    refill_guarded: Sequence[GuardedPool] = (),
) -> Overview:
    """All of it."""
    return Overview(
        version="1.2.3",
        up_s=93_784,
        dry_run=dry_run,
        rules="0123456789ab",
        reloaded=reloaded,
        servers=servers or (line(),),
        more_servers=0,
        shown=shown,
        recent_events=tuple(recent_events),
        assessments=tuple(assessments),
        refill_guarded=tuple(refill_guarded),
    )


def assessment(text: str, *, advice: str = "not yet") -> AssessmentLine:
    """The assessment of a policy."""
    return AssessmentLine(policy=text, advice=advice, said=f"{advice}: {text}", acts=812)


def pool(text: str) -> GuardedPool:
    """A pool that the refill guard pauses."""
    who = Identity(text, text, text, "10.2.0.7")
    return GuardedPool(server=text, policy=text, session=who, until=None, reason=f"9 of 10 came back: {text}")


def usual() -> Overview:
    """One server, nothing special."""
    said = "too little seen: none was used again so far; 12 of 14 have a known outcome, 35 are needed"
    assessments = [
        assessment("consoles"),
        AssessmentLine(policy="batch", advice="too little seen", said=said, acts=14),
    ]
    seen = view(usage(*a_day_like_any_other()))
    return overview(seen, recent_events=[event()], assessments=assessments, refill_guarded=[pool("web")])


def full() -> Overview:
    """One server whose slots are taken."""
    seen = usage(*a_day_like_any_other(83))
    return overview(view(seen), line(used=95), recent_events=[event(), event(outcome="denied")])


def empty() -> Overview:
    """A server without a snapshot, in a dry run with a bad policy file."""
    away = line(used=None, state="unreachable", why="connection refused")
    return overview(view(None), away, dry_run=True, reloaded=False)


def hostile() -> Overview:
    """Hostile names in every field."""
    seen = view(usage(*named(HOSTILE)), name=HOSTILE[0], policy=HOSTILE[1], reason=HOSTILE[2])
    servers = (line(HOSTILE[0], why=HOSTILE[1], state="failing"), line(HOSTILE[9]))
    return overview(
        seen,
        *servers,
        recent_events=[event(name) for name in HOSTILE],
        assessments=[assessment(name) for name in HOSTILE],
        refill_guarded=[pool(name) for name in HOSTILE],
    )


def fleet(count: int = 20) -> Overview:
    """Many servers, one of them full, one unreachable."""
    servers = [line(f"orders-{number:02}.internal", used=4 * number) for number in range(count - 2)]
    away = line(
        "payroll", used=None, state="unreachable", why="connection to 10.0.0.9 failed: timeout expired"
    )
    return overview(None, away, line("billing", used=96), *reversed(servers), recent_events=[event()])
