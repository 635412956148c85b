"""The promises that hold on every server, under every policy file."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import IPv6Address, ip_address
from random import Random
from typing import Final

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from reaper.policy.deadline import next_due
from reaper.policy.decide import decide, needed_facts
from reaper.policy.explain import explain
from reaper.policy.plan import Candidate, Plan, SkipReason
from reaper.policy.rules import Mode, Policy
from reaper.policy.selector import From, Selector
from reaper.policy.session import STATES, Identity, Session, Snapshot
from reaper.policy.time import Timestamp

from .build import NOW
from .hostile import PROPERTY, World, worlds


def decided(world: World) -> Plan:
    return decide(snapshot=world.snapshot, rules=world.rules, memory=world.memory)


SEARCH: Final = settings(database=None, max_examples=20_000, phases=[Phase.generate])


def everything_condemned(plan: Plan) -> tuple[Candidate, ...]:
    return (*plan.candidates, *plan.dry_run_candidates)


@pytest.mark.parametrize("by", SkipReason)
def test_the_generated_worlds_spare_in_every_way(by: SkipReason) -> None:
    find(
        worlds(),
        lambda world: any(skip.by is by for skip in decided(world).skips),
        settings=SEARCH,
        random=Random(0),  # noqa: S311  the same search every time
    )


@pytest.mark.parametrize(
    "happens",
    [
        lambda plan: len(plan.candidates) > 1,
        lambda plan: len({candidate.policy.name for candidate in plan.candidates}) > 1,
        lambda plan: plan.dry_run_candidates and plan.candidates,
        lambda plan: plan.dry_run_beside,
        lambda plan: plan.trips,
    ],
    ids=["reaps", "reaps-of-two-policies", "both-modes", "beside", "brakes"],
)
def test_the_generated_worlds_condemn_in_every_way(happens: Callable[[Plan], bool]) -> None:
    find(
        worlds(),
        lambda world: bool(happens(decided(world))),
        settings=SEARCH,
        random=Random(0),  # noqa: S311  the same search every time
    )


@PROPERTY
@given(worlds())
def test_every_question_has_an_answer_in_every_world(world: World) -> None:
    decided(world)
    needed_facts(world.snapshot, world.rules)
    next_due(world.snapshot, world.rules)
    for seen in world.snapshot.sessions:
        explain(seen, snapshot=world.snapshot, rules=world.rules)


@PROPERTY
@given(worlds(), st.integers())
def test_every_moment_is_one_at_which_can_be_decided(world: World, at: int) -> None:
    decided(replace(world, snapshot=replace(world.snapshot, at=Timestamp(at))))


@PROPERTY
@given(worlds())
def test_every_session_is_judged_exactly_once_in_the_order_of_identities(world: World) -> None:
    found = [answer.session.id for answer in decided(world).decisions]
    assert found == sorted(seen.id for seen in world.snapshot.sessions)


@PROPERTY
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(world: World, random: Random) -> None:
    shuffled = list(world.snapshot.sessions)
    random.shuffle(shuffled)
    other = replace(world, snapshot=replace(world.snapshot, sessions=tuple(shuffled)))
    assert decided(other) == decided(world)
    assert decided(other).decisions == decided(world).decisions


@PROPERTY
@given(worlds())
def test_every_decision_has_a_reason(world: World) -> None:
    plan = decided(world)
    assert all(answer.reason for answer in (*plan.decisions, *plan.dry_run_beside, *plan.trips))


# What protects, said once more and in another way than the code says it.
PROTECTIONS: Final[dict[str, Callable[[Session, Snapshot], bool]]] = {
    "replication": lambda seen, _: seen.kind == "walsender",
    "superusers": lambda seen, look: seen.superuser and not look.watcher.superuser,
    "listeners": lambda seen, _: seen.last_query_listens,
    "backups": lambda seen, _: seen.last_query_starts_backup or seen.identity.application == "pg_dump",
    "sync-replication": lambda seen, _: seen.wait_event == "SyncRep",
    "managed-service-roles": lambda seen, _: seen.identity.role in ("rdsadmin", "pgbouncer"),
    "poolers": lambda seen, _: seen.identity.application == "pgbouncer",
    "advisory-locks": lambda seen, look: (
        look.facts.advisory_lock_holders is None or seen.id.pid in look.facts.advisory_lock_holders
    ),
}


@PROPERTY
@given(worlds())
def test_a_protection_that_is_not_set_aside_always_wins(world: World) -> None:
    for candidate in everything_condemned(decided(world)):
        for name, protects in PROTECTIONS.items():
            assert name in candidate.policy.overrides or not protects(candidate.session, world.snapshot)
        assert not hits(world.rules.protect, candidate.session.identity)


@PROPERTY
@given(worlds())
def test_the_reaper_never_takes_itself_or_another_reaper(world: World) -> None:
    watcher = world.snapshot.watcher
    for candidate in everything_condemned(decided(world)):
        assert candidate.session.id.pid != watcher.pid
        assert (candidate.session.identity.role, candidate.session.identity.application) != (
            watcher.role,
            "pg-reaper",
        )


@PROPERTY
@given(worlds())
def test_what_is_not_known_is_spared(world: World) -> None:
    for candidate in everything_condemned(decided(world)):
        assert candidate.session.state in STATES
        assert candidate.session.kind in ("client backend", "walsender")
        assert candidate.session.state_change is not None
        assert candidate.session.state_change <= world.snapshot.at


def fits(pattern: object, value: str | None) -> bool:
    if isinstance(pattern, From):
        return in_network(pattern, value)
    return value is not None and fnmatchcase(value, str(pattern))


def in_network(matching: From, client: str | None) -> bool:
    if client is None or matching.network is None:
        return client is None and matching.network is None
    try:
        address = ip_address(client)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address in matching.network or (mapped is not None and mapped in matching.network)


def keys(selector: Selector, identity: Identity) -> list[bool]:
    given_keys = ((getattr(selector, key), getattr(identity, key)) for key in Identity._fields)
    return [any(fits(pattern, value) for pattern in wanted) for wanted, value in given_keys if wanted]


def hits(selector: Selector, identity: Identity) -> bool:
    return any(keys(selector, identity))


@PROPERTY
@given(worlds())
def test_who_is_condemned_meets_every_criterion_and_is_on_no_allowlist(world: World) -> None:
    for candidate in everything_condemned(decided(world)):
        match, seen = candidate.policy.match, candidate.session
        ages = [
            (match.idle_for, seen.state_change),
            (match.transaction_for, seen.xact_start),
            (match.connected_for, seen.id.backend_start),
            (match.running_for, seen.query_start),
        ]
        assert seen.state in match.states
        assert all(keys(match.selector, seen.identity))
        assert not hits(candidate.policy.allowlist, seen.identity)
        assert all(began is not None and NOW - began >= limit for limit, began in ages if limit is not None)
        assert match.xmin_age is None or (seen.xid_age or 0) >= match.xmin_age
        assert not match.blocking or (world.snapshot.facts.waiters or {})[seen.id.pid] > 0


@PROPERTY
@given(worlds())
def test_no_policy_takes_more_than_its_pace_or_whom_it_has_not_seen_before(world: World) -> None:
    plan = decided(world)
    for mode_reaps in (plan.candidates, plan.dry_run_candidates):
        taken = Counter(candidate.policy for candidate in mode_reaps)
        assert all(count <= policy.max_per_cycle for policy, count in taken.items())
        assert all(candidate.session.id in world.memory.seen for candidate in mode_reaps)


@PROPERTY
@given(worlds())
def test_a_policy_whose_brake_tripped_takes_nobody(world: World) -> None:
    plan = decided(world)
    tripped = {trip.policy for trip in plan.trips}
    assert not tripped & {candidate.policy for candidate in everything_condemned(plan)}


def only(mode: Mode, world: World) -> World:
    kept = tuple(policy for policy in world.rules.policies if policy.mode is mode)
    return replace(world, rules=replace(world.rules, policies=kept))


@PROPERTY
@given(worlds())
def test_policies_that_do_not_enforce_change_nothing_for_real(world: World) -> None:
    plan, alone = decided(world), decided(only(Mode.ENFORCE, world))
    assert plan.candidates == alone.candidates
    assert [trip for trip in plan.trips if trip.policy.mode is Mode.ENFORCE] == list(alone.trips)


@PROPERTY
@given(worlds())
def test_policies_terminate_or_dry_run_by_their_mode(world: World) -> None:
    plan = decided(world)
    assert all(candidate.policy.mode is Mode.ENFORCE for candidate in plan.candidates)
    assert all(
        candidate.policy.mode is Mode.DRY_RUN
        for candidate in everything_condemned(plan)[len(plan.candidates) :]
    )


def enforced(policy: Policy) -> Policy:
    return replace(policy, mode=Mode.ENFORCE) if policy.mode is Mode.DRY_RUN else policy


@PROPERTY
@given(worlds())
def test_a_dry_run_shows_the_candidates_of_the_enforced_policy(world: World) -> None:
    fresh = replace(world, memory=replace(world.memory, dry_run_before=frozenset()))
    real_rules = replace(world.rules, policies=tuple(map(enforced, world.rules.policies)))
    dry_running = {policy.name for policy in world.rules.dry_running}
    real = decided(replace(fresh, rules=real_rules)).candidates
    shown = decided(fresh).dry_run_candidates
    assert [(candidate.session.id, candidate.reason) for candidate in shown] == [
        (candidate.session.id, candidate.reason) for candidate in real if candidate.policy.name in dry_running
    ]
