"""Dry runs: the candidates that they show; they change nothing for enforcing policies."""

from dataclasses import replace

import pytest

from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Outcome, Plan, Result, SkipReason
from reaper.policy.rules import Action, Keep, MaxSessions, Mode, Policy, SafetyLimit, When
from reaper.policy.selector import Selector
from reaper.policy.session import ACTIVE, WALSENDER, Snapshot
from reaper.policy.time import Duration

from .build import globs, pids, plan, policy, session, sessions, skipped, snapshot

DRY = policy("dry", mode=Mode.DRY_RUN)
REAL = policy("real")


def dry_run(seen: Snapshot, memory: Memory, *policies: Policy) -> tuple[Plan, Memory]:
    """One cycle with --dry-run."""
    decided = plan(seen, *policies, memory=memory)
    settled = [
        (candidate, Outcome(result=Result.DRY_RUN))
        for candidate in (*decided.candidates, *decided.dry_run_candidates)
    ]
    return decided, memory.after(seen, settled)


def perform(seen: Snapshot, memory: Memory, *policies: Policy) -> tuple[Plan, Snapshot, Memory]:
    """One cycle for real: whoever is reaped is gone, and its slot is free."""
    decided = plan(seen, *policies, memory=memory)
    gone = {candidate.session.id for candidate in decided.candidates}
    left = tuple(one for one in seen.sessions if one.id not in gone)
    slots = replace(seen.slots, used=seen.slots.used - len(gone))
    settled = [(candidate, Outcome(result=Result.TERMINATED)) for candidate in decided.candidates]
    return decided, replace(seen, sessions=left, slots=slots), memory.after(seen, settled)


def test_a_policy_is_in_dry_run_by_default() -> None:
    assert Policy(name="new", match=REAL.match).mode is Mode.DRY_RUN


def test_a_dry_run_policy_terminates_nothing_and_shows_its_candidates() -> None:
    decided = plan(snapshot(session()), DRY)
    assert decided.candidates == ()
    assert [(candidate.mode, candidate.reason) for candidate in decided.dry_run_candidates] == [
        (Mode.DRY_RUN, "idle 1h, limit 10m")
    ]


def test_a_dry_run_policy_does_not_hide_sessions_from_an_enforcing_one_below() -> None:
    decided = plan(snapshot(session()), DRY, REAL)
    assert [candidate.policy.name for candidate in decided.candidates] == ["real"]
    assert [candidate.policy.name for candidate in decided.dry_run_candidates] == ["dry"]
    assert [candidate.policy.name for candidate in decided.dry_run_beside] == ["dry"]


def test_a_dry_run_policy_below_an_enforcing_one_gets_no_session_of_it() -> None:
    decided = plan(snapshot(session()), REAL, DRY)
    assert [candidate.policy.name for candidate in decided.candidates] == ["real"]
    assert decided.dry_run_candidates == ()


@pytest.mark.parametrize(
    "real",
    [
        replace(REAL, allowlist=Selector(role=globs("app_*"))),
        replace(REAL, when=When(0.99)),
        replace(REAL, keep=Keep(newest=1, per=("role",))),
        replace(REAL, safety_limit=SafetyLimit(share=0.5, above=0)),
    ],
    ids=["allowlist", "when", "keep", "brake"],
)
def test_a_dry_run_shows_a_session_that_the_enforcing_policy_skips(real: Policy) -> None:
    decided = plan(snapshot(session()), DRY, real)
    assert decided.candidates == ()
    assert [answer.reason for answer in decided.dry_run_candidates] == ["idle 1h, limit 10m"]
    assert decided.dry_run_beside == ()


def test_the_reason_of_a_dry_run_skip_is_shown_if_no_enforcing_policy_has_one() -> None:
    allowing = replace(DRY, allowlist=Selector(role=globs("app_web")))
    answer = skipped(plan(snapshot(session()), allowing).decisions[0])
    assert (answer.by, answer.policy) == (SkipReason.ALLOWLIST, allowing)


def test_the_reason_of_an_enforcing_skip_comes_before_that_of_a_dry_run() -> None:
    real = replace(REAL, allowlist=Selector(role=globs("app_web")))
    answer = skipped(plan(snapshot(session()), replace(DRY, when=When(0.99)), real).decisions[0])
    assert (answer.by, answer.policy) == (SkipReason.ALLOWLIST, real)


def test_the_safety_limit_of_a_dry_run_policy_is_reported_and_stops_no_enforcing_one() -> None:
    wild = replace(DRY, safety_limit=SafetyLimit(share=0.1, above=0))
    decided = plan(snapshot(*sessions(4)), wild, REAL)
    assert len(decided.candidates) == 4
    assert [trip.policy.name for trip in decided.trips] == ["dry"]


def test_the_safety_limit_of_an_enforcing_policy_is_reported_once() -> None:
    wild = replace(REAL, safety_limit=SafetyLimit(share=0.1, above=0))
    decided = plan(snapshot(*sessions(4)), wild, replace(DRY, match=replace(DRY.match, states=(ACTIVE,))))
    assert [trip.policy.name for trip in decided.trips] == ["real"]


def test_max_per_cycle_of_a_dry_run_goes_on_to_the_next_sessions() -> None:
    seen, slow = snapshot(*sessions(5)), replace(DRY, max_per_cycle=2, safety_limit=None)
    memory = Memory.of(seen)
    shown = []
    for _ in range(4):
        decided, memory = dry_run(seen, memory, slow)
        shown.append(pids(decided.dry_run_candidates))
    assert shown == [[100, 101], [102, 103], [104], []]


def test_a_session_after_its_dry_run_has_that_reason() -> None:
    seen = snapshot(session())
    _, memory = dry_run(seen, Memory.of(seen), DRY)
    again, _ = dry_run(seen, memory, DRY)
    answer = skipped(again.decisions[0])
    assert (answer.by, answer.reason) == (
        SkipReason.DRY_RUN,
        "dry run before: enforcement would have terminated it",
    )


def test_a_session_used_after_its_dry_run_is_decided_again() -> None:
    seen = snapshot(session())
    _, memory = dry_run(seen, Memory.of(seen), DRY)
    again, _ = dry_run(snapshot(session(idle="30m")), memory, DRY)
    assert again.dry_run_candidates


def test_a_reused_pid_is_not_the_session_of_the_dry_run() -> None:
    seen = snapshot(session(connected="9h"))
    _, memory = dry_run(seen, Memory.of(seen), DRY)
    other = snapshot(session(connected="8h"))
    assert plan(other, DRY, memory=memory.after(other)).dry_run_candidates


def test_a_dry_run_is_forgotten_with_its_session() -> None:
    seen = snapshot(session())
    _, memory = dry_run(seen, Memory.of(seen), DRY)
    assert memory.dry_run_before
    assert memory.after(snapshot()).dry_run_before == frozenset()


def test_a_session_of_a_dry_run_policy_is_still_there_for_an_enforcing_one() -> None:
    seen = snapshot(session())
    _, memory = dry_run(seen, Memory.of(seen), DRY)
    assert plan(seen, DRY, REAL, memory=memory).candidates


def test_a_dry_run_of_an_enforcing_policy_counts_as_gone_for_a_dry_run_policy() -> None:
    seen = snapshot(*sessions(2))
    _, memory = dry_run(seen, Memory.of(seen), replace(REAL, max_per_cycle=1))
    again = plan(seen, DRY, memory=memory)
    assert pids(again.dry_run_candidates) == [101]


RUNS = [
    replace(REAL, max_sessions=MaxSessions(most=15, per=("role",)), safety_limit=None, max_per_cycle=100),
    replace(REAL, max_sessions=MaxSessions(most=15, per=("role",)), safety_limit=None, max_per_cycle=2),
    replace(REAL, when=When(0.9), safety_limit=None, max_per_cycle=4),
    replace(REAL, keep=Keep(newest=3, per=("role",)), safety_limit=None, max_per_cycle=7),
    replace(REAL, safety_limit=SafetyLimit(share=0.5, above=5)),
]


@pytest.mark.parametrize("real", RUNS, ids=["cap", "cap-and-pace", "when", "keep", "brake"])
def test_a_dry_run_of_many_cycles_takes_the_sessions_of_a_real_run(real: Policy) -> None:
    seen = dry_run_on = snapshot(*sessions(20), used=97)
    memory = dry_run_before = Memory.of(seen)
    for _ in range(6):
        performed, seen, memory = perform(seen, memory, real)
        shown, dry_run_before = dry_run(dry_run_on, dry_run_before, real)
        assert pids(shown.candidates) == pids(performed.candidates)


def test_a_dry_run_of_cancelling_frees_no_slot() -> None:
    busy = snapshot(session(1, state=ACTIVE), session(2), session(3), used=50)
    busy = replace(busy, watcher=replace(busy.watcher, pid=9))
    match = replace(DRY.match, states=(ACTIVE,), idle_for=None, running_for=Duration(1))
    cancelling = replace(DRY, match=match, action=Action.CANCEL)
    _, memory = dry_run(busy, Memory.of(busy), cancelling)
    assert memory.was_dry_run(busy.sessions[0], Mode.DRY_RUN)
    assert memory.without_dry_run(busy, Mode.DRY_RUN) == busy


def test_a_dry_run_of_terminating_counts_the_slot_as_free() -> None:
    seen = snapshot(*sessions(2), used=50)
    _, memory = dry_run(seen, Memory.of(seen), replace(DRY, max_per_cycle=1))
    left = memory.without_dry_run(seen, Mode.DRY_RUN)
    assert ([one.id.pid for one in left.sessions], left.slots.used) == ([101], 49)
    assert memory.without_dry_run(seen, Mode.ENFORCE) == seen


def test_a_dry_run_of_a_walsender_frees_no_slot() -> None:
    seen = snapshot(session(kind=WALSENDER), used=50)
    _, memory = dry_run(seen, Memory.of(seen), replace(DRY, overrides=frozenset({"replication"})))
    left = memory.without_dry_run(seen, Mode.DRY_RUN)
    assert (left.sessions, left.slots.used) == ((), 50)


def test_candidates_stand_with_the_longest_idle_first() -> None:
    seen = snapshot(session(1, idle="20m"), session(2, idle="40m"), session(3, idle="30m"))
    seen = replace(seen, watcher=replace(seen.watcher, pid=9))
    decided = plan(seen, DRY, REAL)
    assert pids(decided.candidates) == pids(decided.dry_run_candidates) == [2, 3, 1]


def test_every_candidate_has_the_action_of_its_policy() -> None:
    running = replace(DRY.match, states=(ACTIVE,), idle_for=None, running_for=Duration(1))
    cancelling = replace(REAL, match=running, action=Action.CANCEL)
    answer = plan(snapshot(session(state=ACTIVE)), cancelling).decisions[0]
    assert isinstance(answer, Candidate)
    assert answer.action is Action.CANCEL
