"""The prefilter leaves out sessions that no policy can match yet, and changes no decision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from reaper.policy.deadline import rest_after
from reaper.policy.decide import decide, needed_facts
from reaper.policy.match import Match
from reaper.policy.memory import Memory
from reaper.policy.plan import Plan
from reaper.policy.protections import OVERRIDABLE
from reaper.policy.rules import Keep, MaxSessions, Mode, Policy, Rules, SafetyLimit, When
from reaper.policy.selector import Glob, Selector
from reaper.policy.session import ABORTED, ACTIVE, CLIENT_BACKEND, IDLE, IN_TRANSACTION, STATES, Snapshot
from reaper.policy.time import SECOND, Duration
from reaper.postgres import observer
from reaper.postgres.observer import Observer

from .clients import Client
from .reaping import AT_ONCE, DAY, NOW, policy
from .server import Server
from .stage import Stage
from .waiting import until

FAR: Final = Match(states=(IDLE,), idle_for=DAY)
AHEAD: Final = Duration(0)


class Looks:
    """Takes snapshots with an observer of its own."""

    def __init__(self, stage: Stage, *, one_by_one: float = 0.1) -> None:
        self._reaper = stage.reaper
        self._observer = Observer(stage.reaper.link, stage.reaper.probe, server="test", one_by_one=one_by_one)

    def look(self, rules: Rules, *, ahead: Duration | None = AHEAD) -> Snapshot:
        return self._reaper.do(self._observer.observe(rules, ahead=ahead))

    def left_out(self, rules: Rules) -> list[bool]:
        """Which of three snapshots in a row were prefiltered."""
        return [self.look(rules).left_out is not None for _ in range(3)]


def test_sessions_that_no_policy_can_match_yet_are_counted_and_left_out(stage: Stage) -> None:
    stage.open_many(5)
    looks, rules = Looks(stage), Rules(policies=(policy(stage.application, FAR),))

    full, some = looks.look(rules), looks.look(rules)

    assert full.left_out is None
    assert others(some) == set()
    assert some.left_out == len(full.sessions) - len(some.sessions)
    assert (some.slots, some.clients) == (full.slots, full.clients)


@pytest.mark.parametrize("one_by_one", [0.0, 1.0])
def test_sessions_of_unmatched_roles_are_counted_and_left_out(stage: Stage, one_by_one: float) -> None:
    stage.open_many(3)
    batch = stage.sandbox.role("batch")
    client = stage.open(role=batch)
    looks, rules = Looks(stage, one_by_one=one_by_one), matching(batch.name)

    full, some = looks.look(rules), looks.look(rules)

    assert others(some) == {client.pid}
    assert others(full) > others(some)
    assert (some.slots, some.clients) == (full.slots, full.clients)


def test_a_renamed_role_is_noticed_at_the_next_full_snapshot(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, was, becomes = stage.open(), stage.app.name, stage.sandbox.name("other")
    looks, rules = Looks(stage), matching(becomes)
    looks.look(rules)
    rename(stage, was, becomes)
    try:
        before = looks.look(rules)
        monkeypatch.setattr(observer, "_FEW_EVERY", NOW)
        after = [looks.look(rules) for _ in range(3)]
    finally:
        rename(stage, becomes, was)

    assert others(before) == set()
    assert [look.left_out is None for look in after] == [False, True, False]
    assert others(after[-1]) == {client.pid}


def matching(role: str) -> Rules:
    """Rules that match this role, whatever the application."""
    match = replace(AT_ONCE, selector=Selector(role=(Glob(role),)))
    return Rules(policies=(policy("*", match),))


def others(snapshot: Snapshot) -> set[int]:
    """The pids of the clients that are shown, without the observer's own; walsenders always are."""
    clients = {session.id.pid for session in snapshot.sessions if session.kind == CLIENT_BACKEND}
    return clients - {snapshot.watcher.pid}


def rename(stage: Stage, role: str, name: str) -> None:
    stage.admin.execute(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), Identifier(name)))


def test_new_rules_cause_one_full_snapshot(stage: Stage) -> None:
    stage.open()
    looks = Looks(stage)

    for name in ("one", "another"):
        rules = Rules(policies=(policy(name, FAR),))
        assert looks.left_out(rules) == [False, True, True]


@pytest.mark.parametrize(("few", "every"), [(1_000_000, "_FEW_EVERY"), (0, "_FULL_EVERY")])
def test_a_full_snapshot_is_taken_at_intervals(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, few: int, every: str
) -> None:
    monkeypatch.setattr(observer, "_FEW", few)
    looks, rules = Looks(stage), Rules(policies=(policy(stage.application, FAR),))
    assert looks.left_out(rules) == [False, True, True]

    monkeypatch.setattr(observer, every, NOW)

    assert looks.left_out(rules) == [True, False, True]


def test_a_candidate_under_max_sessions_causes_full_snapshots(stage: Stage) -> None:
    old, left_out = stage.open(), stage.open()
    stage.reaper.rest(old)
    between = stage.reaper.see(old).state_change
    assert between
    left_out.wake()
    limit = Duration(stage.reaper.look().at - between - 1)
    capped = replace(
        policy(stage.application, Match(states=(IDLE,), idle_for=limit)),
        max_sessions=MaxSessions(most=1, per=("role",)),
    )

    assert Looks(stage).left_out(Rules(policies=(capped,))) == [False, False, False]
    far = replace(capped, match=replace(capped.match, idle_for=DAY))
    assert Looks(stage).left_out(Rules(policies=(far,))) == [False, True, True]


def test_without_a_prefilter_every_snapshot_is_full(stage: Stage) -> None:
    looks, rules = Looks(stage), Rules(policies=(policy(stage.application, FAR),))

    assert [looks.look(rules, ahead=None).left_out for _ in range(2)] == [None, None]


def test_unreadable_sessions_are_counted_with_and_without_the_prefilter(stage: Stage) -> None:
    stage.open_many(3)
    blind = stage.open_reaper(stage.sandbox.role("blind"))
    rules = Rules(policies=(policy(stage.application, FAR),))
    looks = Observer(blind.link, blind.probe, server="test")

    full, some = (blind.do(looks.observe(rules, ahead=AHEAD)) for _ in range(2))

    assert (full.left_out, some.left_out) == (None, 0)
    assert full.unreadable == some.unreadable >= 3
    assert full.slots == some.slots


ONE_BY_ONE: Final = 1.0
ALL_AT_ONCE: Final = 0.0
INTERVAL: Final = Duration(10 * SECOND)
MOVABLE: Final = 8
MOVES: Final = ("query", "begin", "fail", "end")


class Cast(NamedTuple):
    """A server with sessions in every state; none of ours changes by itself."""

    # Others may change: sessions of earlier tests exit, an idle backend wakes to flush its statistics, and
    # autovacuum ages every snapshot that is held.

    stage: Stage
    movable: list[Client]
    observers: Mapping[float, Observer]

    def both(self, rules: Rules, ahead: Duration, share: float) -> tuple[Snapshot, Snapshot]:
        """A prefiltered snapshot, and a full one of the same moment."""
        reaper, prefiltered = self.stage.reaper, self.observers[share]
        reaper.do(prefiltered.observe(rules, ahead=ahead))  # the first under these rules is a full one

        def between_two_equal() -> tuple[Snapshot, Snapshot] | None:
            before = reaper.look()
            some = reaper.do(prefiltered.observe(rules, ahead=ahead))
            full = reaper.look()
            moved = changeable(before) != changeable(full)
            return None if moved else (replace(some, facts=full.facts), replace(full, at=some.at))

        pair = until(between_two_equal)
        assert pair
        return pair


@pytest.fixture(scope="module")
def cast(server: Server) -> Iterator[Cast]:
    """Sessions that have slept, spoken, failed, never said a word, or replicate."""
    with Stage(server) as stage:
        role = stage.sandbox.role("standby", options="REPLICATION")
        stage.open(dsn=f"{role.dsn} replication=database")
        stage.open(state="active")
        stage.open(application="pgbouncer")
        stage.open().listen()
        stage.open().hold_advisory_lock(7)
        stage.open_superuser()
        if stage.server.embedded:
            stage.open(dsn=stage.server.embedded.socket_dsn)
        silent = [psycopg.connect(stage.app.dsn, application_name=stage.application) for _ in range(2)]
        movable = stage.open_many(MOVABLE)
        reaper = stage.reaper
        for client in stage.sessions:
            reaper.rest(client)
        untracked = stage.sandbox.role("untracked")
        stage.set(untracked, "track_activities", "off")
        stage.open(role=untracked)
        observers = {
            share: Observer(reaper.link, reaper.probe, server="test", one_by_one=share)
            for share in (ONE_BY_ONE, ALL_AT_ONCE)
        }
        yield Cast(stage, movable, observers)
        for connection in silent:
            connection.close()


def move(client: Client, how: str) -> None:
    """Let a session do something, and be idle in one way or another."""
    if how == "end":
        client.run("ROLLBACK")
    elif how == "fail":
        client.run("ROLLBACK")
        client.enter(ABORTED)
    elif how == "begin":
        client.run("ROLLBACK")
        client.enter(IN_TRANSACTION)
    else:
        client.wake()


class Limit(NamedTuple):
    """A limit near the age of one of the sessions; the ages are known only at run time."""

    rank: int
    more: int

    def resolved(self, ages: Sequence[Duration]) -> Duration:
        """The limit by these ages."""
        return Duration(max(ages[self.rank % len(ages)] + self.more, 0))


limits = st.builds(
    Limit, st.integers(min_value=0, max_value=60), st.sampled_from([-SECOND, -20_000, 0, 20_000, SECOND])
)
matches = st.one_of(
    st.fixed_dictionaries({"states": st.just((IDLE,)), "idle_for": limits}),
    st.fixed_dictionaries(
        {
            "states": st.sampled_from([(IN_TRANSACTION,), (ABORTED,), (IN_TRANSACTION, ABORTED)]),
            "idle_for": limits,
        }
    ),
    st.fixed_dictionaries({"states": st.just((ACTIVE,)), "running_for": limits}),
    st.fixed_dictionaries(
        {
            "states": st.lists(st.sampled_from(STATES), min_size=1, max_size=3, unique=True).map(tuple),
            "idle_for": st.none() | limits,
            "transaction_for": st.none() | limits,
            "connected_for": st.none() | limits,
            "running_for": st.none() | limits,
        }
    ),
)
ROLES: Final = ((), (), ("*app*",), ("*standby*", "postgres"), ("nobody",))
policies = st.fixed_dictionaries(
    {
        "match": matches,
        "roles": st.sampled_from(ROLES),
        "mode": st.sampled_from(Mode),
        "overrides": st.sampled_from([frozenset[str](), frozenset(OVERRIDABLE)]),
        "when": st.sampled_from([None, None, When(0.1), When(0.4), When(0.9)]),
        "keep": st.sampled_from([None, None, Keep(newest=2, per=("application",))]),
        "max_sessions": st.sampled_from([None, None, None, None, MaxSessions(most=3, per=("application",))]),
        "max_per_cycle": st.sampled_from([1, 3, 100]),
        "safety_limit": st.sampled_from(
            [None, SafetyLimit(share=0.2, above=1), SafetyLimit(share=0.5, above=5)]
        ),
    }
)


def ages(snapshot: Snapshot) -> Sequence[Duration]:
    """How long everything has lasted that a policy could ask for."""
    moments = {
        moment
        for each in snapshot.sessions
        for moment in (each.state_change, each.query_start, each.xact_start, each.id.backend_start)
        if moment is not None
    }
    return [Duration(max(snapshot.at - moment, 0)) for moment in sorted(moments)]


def written(chosen: Sequence[dict[str, Any]], by: Sequence[Duration]) -> Rules:
    """Rules of the drawn values, with limits near the ages of the sessions."""

    def match(criteria: dict[str, Any], roles: Sequence[str]) -> Match:
        given: dict[str, Any] = {
            key: value.resolved(by) if isinstance(value, Limit) else value for key, value in criteria.items()
        }
        return Match(**given, selector=Selector(role=tuple(map(Glob, roles))))

    def policy(rank: int, keys: dict[str, Any]) -> Policy:
        others = {key: value for key, value in keys.items() if key not in {"match", "roles"}}
        return Policy(name=f"policy-{rank}", match=match(keys["match"], keys["roles"]), **others)

    return Rules(policies=tuple(policy(rank, keys) for rank, keys in enumerate(chosen)))


def effects(plan: Plan) -> object:
    """The parts of a plan that are acted on, logged or counted."""
    matched = [skip for skip in plan.skips if skip.policy]
    return plan.candidates, plan.dry_run_candidates, plan.dry_run_beside, plan.trips, matched


def counts(snapshot: Snapshot) -> object:
    return snapshot.slots, snapshot.clients, snapshot.unreadable


def without_watcher(snapshot: Snapshot) -> Snapshot:
    """Its own session moves with every look."""
    others = (each for each in snapshot.sessions if each.id.pid != snapshot.watcher.pid)
    return replace(snapshot, sessions=tuple(others))


def changeable(snapshot: Snapshot) -> object:
    """The parts of a snapshot that differ only if a session has changed."""
    return without_watcher(snapshot).sessions, counts(snapshot), snapshot.facts


@settings(max_examples=100)
@given(
    moves=st.lists(st.tuples(st.integers(0, MOVABLE - 1), st.sampled_from(MOVES)), max_size=3),
    chosen=st.lists(policies, min_size=1, max_size=4),
    ahead=st.sampled_from([Duration(0), Duration(50_000), INTERVAL]),
    share=st.sampled_from([ONE_BY_ONE, ALL_AT_ONCE]),
)
def test_the_prefilter_changes_neither_the_plan_nor_the_deadline(
    cast: Cast, moves: list[tuple[int, str]], chosen: list[dict[str, Any]], ahead: Duration, share: float
) -> None:
    for number, how in moves:
        move(cast.movable[number], how)
        cast.stage.reaper.rest(cast.movable[number])
    rules = written(chosen, ages(cast.stage.reaper.look()))

    some, full = cast.both(rules, ahead, share)

    assert some.left_out is not None or any(each.max_sessions for each in rules.enabled)
    assert counts(some) == counts(full)
    assert needed_facts(some, rules) == needed_facts(full, rules)
    memory = Memory.of(full)
    assert effects(decide(snapshot=some, rules=rules, memory=memory)) == effects(
        decide(snapshot=full, rules=rules, memory=memory)
    )
    soon, sure = (
        rest_after(without_watcher(each), rules, interval=ahead, precision=Duration(0))
        for each in (some, full)
    )
    assert soon == sure
