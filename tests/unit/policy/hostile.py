"""Everything that a server, its clients and a policy file could come up with, for properties.

The values lean towards those that matter (ages around the limits, names that patterns know), so that plans
have reaps in them; between those stand the hostile ones.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st

from reaper.policy.match import Match
from reaper.policy.memory import DryRunBefore, Memory, Tried
from reaper.policy.protections import BUILT_IN, OVERRIDABLE
from reaper.policy.refill_guard import DEFAULT_REFILL_GUARD, Group, PausedGroup
from reaper.policy.rules import (
    GROUP_KEYS,
    Action,
    Keep,
    MaxSessions,
    Mode,
    Policy,
    Rules,
    SafetyLimit,
    When,
    Window,
)
from reaper.policy.selector import From, Glob, Selector
from reaper.policy.session import (
    ABORTED,
    ACTIVE,
    CLIENT_BACKEND,
    IDLE,
    IN_TRANSACTION,
    STATES,
    WALSENDER,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import Duration, Timestamp, parse_duration

from .build import NOW

T = TypeVar("T")


def mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The usual, four times out of five; `one_of` would take each branch for equally likely."""
    return st.sampled_from([usual, usual, usual, usual, rare]).flatmap(lambda chosen: chosen)


def mostly_none(rare: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """Nothing, four times out of five."""
    return mostly(st.none(), rare)


PROPERTY: Final = settings(max_examples=60)

HUGE: Final = 10**30
LIMITS: Final = [Duration(0), Duration(1), *map(parse_duration, ("10m", "1h", "2d"))]
limits = st.sampled_from(LIMITS)
moments = st.one_of(
    limits.map(lambda limit: Timestamp(NOW - limit)),
    limits.map(lambda limit: Timestamp(NOW - limit + 1)),
    st.sampled_from(
        [Timestamp(NOW - parse_duration("3d")), Timestamp(NOW + 1), Timestamp(HUGE), Timestamp(-HUGE)]
    ),
)
maybe_moments = st.none() | moments | moments

NAMES: Final = [
    *("app_web", "app_batch", "shop", "web-1", "web-2", "metabase", "reaper", "pg-reaper", "pg_dump"),
    *("pgbouncer", "rdsadmin", "", "two\nlines", "\x1b[2J", "\u202egnp", "{}%s'\"\\", "\ud800", "a" * 300),
]
names = st.sampled_from(NAMES[:6]) | st.sampled_from(NAMES) | st.none() | st.text(max_size=4)
clients = st.sampled_from(
    ["10.2.0.7", "10.2.0.8", None, "::1", "::ffff:10.2.0.7", "fe80::1%eth0", "", "999.1.1.1", "local"]
)
identities = st.builds(Identity, database=names, role=names, application=names, client=clients)

states = st.sampled_from([*STATES, *STATES, *STATES, None, "", "disabled", "starting", "IDLE", "idle\n"])
kinds = st.sampled_from([*[CLIENT_BACKEND] * 8, WALSENDER, "parallel worker", "", "Client Backend"])
rarely = st.sampled_from([False] * 9 + [True])

hostile_sessions = st.builds(
    Session,
    id=st.builds(SessionId, pid=st.integers(min_value=1, max_value=12), backend_start=moments),
    identity=identities,
    kind=kinds,
    superuser=rarely,
    state=states,
    state_change=maybe_moments,
    query_start=maybe_moments,
    xact_start=maybe_moments,
    wait_event=st.sampled_from([None, "ClientRead", "ClientRead", "SyncRep"]),
    xid_age=st.sampled_from([None, 0, 99, 100, HUGE, -1]),
    last_query_listens=rarely,
    last_query_starts_backup=rarely,
)

pids = st.integers(min_value=1, max_value=12)

LONG_AGO: Final = [Timestamp(NOW - parse_duration(age)) for age in ("1h", "2d", "2h", "59m", "9m")]
usual_sessions = st.builds(
    lambda pid, identity, state, since, xid_age: Session(
        id=SessionId(pid, Timestamp(NOW - parse_duration("3d"))),
        identity=identity,
        state=state,
        state_change=since,
        query_start=since,
        xact_start=since if state != IDLE else None,
        xid_age=xid_age,
    ),
    pids,
    st.sampled_from(
        [
            Identity(database, role, application, "10.2.0.7")
            for database in ("shop", None)
            for role in ("app_web", "app_batch")
            for application in ("web-1", "metabase")
        ]
    ),
    st.sampled_from([IDLE, IDLE, IDLE, *STATES]),
    st.sampled_from(LONG_AGO),
    st.sampled_from([None, 100]),
)
sessions = mostly(usual_sessions, hostile_sessions)

facts = st.builds(
    Facts,
    advisory_lock_holders=st.sampled_from([frozenset[int](), frozenset[int](), frozenset({1, 2}), None]),
    waiters=st.sampled_from([{pid: pid % 3 for pid in range(12)}, {}, None]),
)
snapshots = st.builds(
    Snapshot,
    server=st.just("orders"),
    at=st.just(NOW),
    slots=st.builds(
        Slots,
        total=st.sampled_from([103, 3, 0]),
        reserved=st.sampled_from([3, 0, HUGE]),
        used=st.sampled_from([80, 79, 100, 0]),
    ),
    watcher=st.builds(
        Watcher, pid=pids, role=st.sampled_from(["reaper", "app_web"]), superuser=st.booleans()
    ),
    sessions=st.lists(sessions, min_size=2, max_size=8, unique_by=lambda seen: seen.id).map(tuple),
    unreadable=st.integers(min_value=0, max_value=3),
    facts=facts,
)

patterns = st.sampled_from(["*", "app_*", "web-?", "shop", "[!a]*", "", "*\n*", "["]) | st.text(max_size=3)
globs = st.lists(patterns.map(Glob), max_size=2).map(tuple)
networks = st.sampled_from(
    [From(None), *(From(ip_network(text)) for text in ("10.2.0.7/32", "10.0.0.0/8", "::/0"))]
)
nobody = st.just(Selector())
selectors = st.builds(
    Selector,
    role=globs,
    database=globs,
    application=globs,
    client=st.lists(networks, max_size=2).map(tuple),
)
maybe_limits = st.none() | limits
usual_matches = st.sampled_from(
    [
        Match(states=STATES, connected_for=Duration(0)),
        Match(states=(IDLE,), idle_for=parse_duration("10m")),
        Match(states=(IDLE,), idle_for=parse_duration("1h"), blocking=True),
        Match(states=(ACTIVE,), running_for=parse_duration("10m")),
        Match(states=(IDLE, IN_TRANSACTION), connected_for=parse_duration("1h"), xmin_age=100),
    ]
)
hostile_matches = st.builds(
    Match,
    states=st.sampled_from(
        [STATES, (IDLE,), (IN_TRANSACTION, ABORTED), (ACTIVE,), (IDLE, ACTIVE, "starting")]
    ),
    selector=nobody | selectors,
    idle_for=maybe_limits,
    transaction_for=st.none() | maybe_limits,
    connected_for=maybe_limits,
    running_for=st.none() | maybe_limits,
    xmin_age=st.sampled_from([None, None, None, 100]),
    blocking=rarely,
)
windows = st.builds(
    Window,
    days=st.frozensets(st.integers(min_value=0, max_value=6)),
    start=st.integers(min_value=0, max_value=1440),
    end=st.integers(min_value=0, max_value=1440),
    zone=st.sampled_from([ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Kiritimati")]),
    text=st.just("in its hours"),
)


shares = st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0])
few = st.integers(min_value=0, max_value=3)
per = st.lists(st.sampled_from(GROUP_KEYS), min_size=1, max_size=2, unique=True).map(tuple)
despites = mostly(
    st.just(frozenset(OVERRIDABLE)), st.frozensets(st.sampled_from([*BUILT_IN, "protect", "no such thing"]))
)
policies = st.builds(
    Policy,
    name=st.just("unnamed"),
    match=mostly(usual_matches, hostile_matches),
    mode=st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.DRY_RUN, Mode.DRY_RUN, Mode.DISABLED]),
    allowlist=mostly(nobody, selectors),
    overrides=despites,
    when=mostly_none(st.builds(When, shares)),
    during=mostly_none(windows).map(lambda window: (window,) if window else ()),
    keep=mostly_none(st.builds(Keep, newest=few, per=per)),
    max_sessions=mostly_none(st.builds(MaxSessions, most=few, per=per)),
    action=st.sampled_from(Action),
    max_per_cycle=st.sampled_from([10, 10, 1, 2, 0]),
    safety_limit=st.none() | st.builds(SafetyLimit, share=shares, above=few),
    refill_guard=st.sampled_from([DEFAULT_REFILL_GUARD, None]),
)


def numbered(chosen: list[Policy]) -> tuple[Policy, ...]:
    """The policies under names of their own, as a policy file must give them."""
    return tuple(replace(policy, name=f"policy-{rank}") for rank, policy in enumerate(chosen))


rules = st.builds(
    Rules,
    policies=st.lists(policies, min_size=1, max_size=4).map(numbered),
    protect=mostly(nobody, selectors),
)


@dataclass(frozen=True)
class World:
    """All that a decision is made from."""

    snapshot: Snapshot
    rules: Rules
    memory: Memory


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A server, a policy file, and what is remembered of the sessions that are there."""
    snapshot = draw(snapshots)
    return World(snapshot, draw(rules), draw(memories(snapshot)))


def paused(group: Group) -> PausedGroup:
    """A pause that is over one microsecond after NOW."""
    return PausedGroup(group, NOW, Timestamp(NOW + 1), 9, 10, "refill guard: replaced")


def memories(snapshot: Snapshot) -> st.SearchStrategy[Memory]:
    """What could be remembered: most were seen, some dry-run, some signalled."""
    if not snapshot.sessions:
        return st.just(Memory())
    known = st.sampled_from([one.id for one in snapshot.sessions])
    dry_run_before = st.builds(
        lambda mode, one, action: DryRunBefore(mode, one.id, one.state_change, action),
        st.sampled_from([Mode.ENFORCE, Mode.DRY_RUN]),
        st.sampled_from(snapshot.sessions),
        st.sampled_from(Action),
    )
    tried = st.builds(Tried.of, st.sampled_from(snapshot.sessions), st.sampled_from(Action))
    everybody = Memory.of(snapshot).seen
    return st.builds(
        Memory,
        seen=mostly(st.just(everybody), st.frozensets(known)),
        dry_run_before=mostly_none(dry_run_before).map(lambda one: frozenset([one] if one else [])),
        no_effect=mostly_none(tried).map(lambda one: {one: 3} if one else {}),
        paused=mostly_none(st.sampled_from(snapshot.sessions)).map(
            lambda one: {(group := Group("policy-0", one.identity)): paused(group)} if one else {}
        ),
    )
