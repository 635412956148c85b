"""What a dry-run policy shows, and that it changes nothing of what happens for real."""

from dataclasses import replace

import pytest

from reaper.policy.memory import Memory
from reaper.policy.plan import Outcome, Plan, Reap, Result, Spared
from reaper.policy.rules import Action, Brake, Cap, Keep, Mode, Policy, When
from reaper.policy.selector import Selector
from reaper.policy.session import ACTIVE, WALSENDER, Snapshot
from reaper.policy.time import Span

from .build import globs, pids, plan, policy, session, sessions, snapshot, spared

DRY = policy("dry", mode=Mode.DRY_RUN)
REAL = policy("real")


def rehearse(seen: Snapshot, memory: Memory, *policies: Policy) -> tuple[Plan, Memory]:
    """One cycle of --dry-run: everything is rehearsed."""
    decided = plan(seen, *policies, memory=memory)
    settled = [(reap, Outcome(result=Result.REHEARSED)) for reap in (*decided.reaps, *decided.rehearsals)]
    return decided, memory.after(seen, settled)


def perform(seen: Snapshot, memory: Memory, *policies: Policy) -> tuple[Plan, Snapshot, Memory]:
    """One cycle for real: whoever is reaped is gone, and its slot is free."""
    decided = plan(seen, *policies, memory=memory)
    gone = {reap.session.id for reap in decided.reaps}
    left = tuple(one for one in seen.sessions if one.id not in gone)
    slots = replace(seen.slots, used=seen.slots.used - len(gone))
    settled = [(reap, Outcome(result=Result.TERMINATED)) for reap in decided.reaps]
    return decided, replace(seen, sessions=left, slots=slots), memory.after(seen, settled)


def test_a_policy_is_harmless_until_it_says_enforce() -> None:
    assert Policy(name="new", match=REAL.match).mode is Mode.DRY_RUN


def test_a_dry_run_policy_reaps_nobody_and_shows_whom_it_would() -> None:
    decided = plan(snapshot(session()), DRY)
    assert decided.reaps == ()
    assert [(reap.mode, reap.reason) for reap in decided.rehearsals] == [(Mode.DRY_RUN, "idle 1h, limit 10m")]


def test_a_dry_run_policy_never_shadows_an_enforcing_one_below() -> None:
    decided = plan(snapshot(session()), DRY, REAL)
    assert [reap.policy.name for reap in decided.reaps] == ["real"]
    assert [reap.policy.name for reap in decided.rehearsals] == ["dry"]
    assert [reap.policy.name for reap in decided.rehearsed_beside] == ["dry"]


def test_a_dry_run_policy_below_an_enforcing_one_would_come_too_late() -> None:
    decided = plan(snapshot(session()), REAL, DRY)
    assert [reap.policy.name for reap in decided.reaps] == ["real"]
    assert decided.rehearsals == ()


@pytest.mark.parametrize(
    "real",
    [
        replace(REAL, allowlist=Selector(role=globs("app_*"))),
        replace(REAL, when=When(0.99)),
        replace(REAL, keep=Keep(newest=1, per=("role",))),
        replace(REAL, brake=Brake(share=0.5, above=0)),
    ],
    ids=["allowlist", "when", "keep", "brake"],
)
def test_a_rehearsal_is_shown_for_a_session_that_is_spared_for_real(real: Policy) -> None:
    decided = plan(snapshot(session()), DRY, real)
    assert decided.reaps == ()
    assert [answer.reason for answer in decided.rehearsals] == ["idle 1h, limit 10m"]
    assert decided.rehearsed_beside == ()


def test_why_a_dry_run_policy_spares_is_shown_when_nothing_happens_for_real() -> None:
    allowing = replace(DRY, allowlist=Selector(role=globs("app_web")))
    answer = spared(plan(snapshot(session()), allowing).verdicts[0])
    assert (answer.by, answer.policy) == (Spared.ALLOWLIST, allowing)


def test_why_an_enforcing_policy_spares_is_shown_before_why_a_dry_run_policy_does() -> None:
    real = replace(REAL, allowlist=Selector(role=globs("app_web")))
    answer = spared(plan(snapshot(session()), replace(DRY, when=When(0.99)), real).verdicts[0])
    assert (answer.by, answer.policy) == (Spared.ALLOWLIST, real)


def test_the_brake_of_a_dry_run_policy_is_told_and_stops_no_enforcing_one() -> None:
    wild = replace(DRY, brake=Brake(share=0.1, above=0))
    decided = plan(snapshot(*sessions(4)), wild, REAL)
    assert len(decided.reaps) == 4
    assert [trip.policy.name for trip in decided.brakes] == ["dry"]


def test_the_brake_of_an_enforcing_policy_is_told_once() -> None:
    wild = replace(REAL, brake=Brake(share=0.1, above=0))
    decided = plan(snapshot(*sessions(4)), wild, replace(DRY, match=replace(DRY.match, states=(ACTIVE,))))
    assert [trip.policy.name for trip in decided.brakes] == ["real"]


def test_the_pace_of_a_rehearsal_moves_on_as_a_real_one_does() -> None:
    seen, slow = snapshot(*sessions(5)), replace(DRY, pace=2, brake=None)
    memory = Memory.of(seen)
    shown = []
    for _ in range(4):
        decided, memory = rehearse(seen, memory, slow)
        shown.append(pids(decided.rehearsals))
    assert shown == [[100, 101], [102, 103], [104], []]


def test_who_was_rehearsed_is_told_so() -> None:
    seen = snapshot(session())
    _, memory = rehearse(seen, Memory.of(seen), DRY)
    again, _ = rehearse(seen, memory, DRY)
    answer = spared(again.verdicts[0])
    assert (answer.by, answer.reason) == (
        Spared.REHEARSED,
        "rehearsed before: a real run would be rid of it",
    )


def test_a_session_that_woke_up_after_its_rehearsal_is_judged_again() -> None:
    seen = snapshot(session())
    _, memory = rehearse(seen, Memory.of(seen), DRY)
    again, _ = rehearse(snapshot(session(idle="30m")), memory, DRY)
    assert again.rehearsals


def test_a_pid_that_was_used_again_after_its_rehearsal_is_judged_for_itself() -> None:
    seen = snapshot(session(connected="9h"))
    _, memory = rehearse(seen, Memory.of(seen), DRY)
    other = snapshot(session(connected="8h"))
    assert plan(other, DRY, memory=memory.after(other)).rehearsals


def test_a_rehearsal_is_forgotten_with_its_session() -> None:
    seen = snapshot(session())
    _, memory = rehearse(seen, Memory.of(seen), DRY)
    assert memory.rehearsed
    assert memory.after(snapshot()).rehearsed == frozenset()


def test_what_a_dry_run_policy_rehearsed_is_not_gone_for_an_enforcing_one() -> None:
    seen = snapshot(session())
    _, memory = rehearse(seen, Memory.of(seen), DRY)
    assert plan(seen, DRY, REAL, memory=memory).reaps


def test_what_an_enforcing_policy_rehearsed_is_gone_for_the_dry_run_beside_it() -> None:
    seen = snapshot(*sessions(2))
    _, memory = rehearse(seen, Memory.of(seen), replace(REAL, pace=1))
    again = plan(seen, DRY, memory=memory)
    assert pids(again.rehearsals) == [101]


RUNS = [
    replace(REAL, cap=Cap(most=15, per=("role",)), brake=None, pace=100),
    replace(REAL, cap=Cap(most=15, per=("role",)), brake=None, pace=2),
    replace(REAL, when=When(0.9), brake=None, pace=4),
    replace(REAL, keep=Keep(newest=3, per=("role",)), brake=None, pace=7),
    replace(REAL, brake=Brake(share=0.5, above=5)),
]


@pytest.mark.parametrize("real", RUNS, ids=["cap", "cap-and-pace", "when", "keep", "brake"])
def test_a_rehearsal_of_many_cycles_takes_the_same_sessions_as_a_real_run(real: Policy) -> None:
    seen = rehearsed_on = snapshot(*sessions(20), used=97)
    memory = rehearsed = Memory.of(seen)
    for _ in range(6):
        performed, seen, memory = perform(seen, memory, real)
        shown, rehearsed = rehearse(rehearsed_on, rehearsed, real)
        assert pids(shown.reaps) == pids(performed.reaps)


def test_a_statement_whose_cancelling_was_rehearsed_leaves_its_session_in_its_slot() -> None:
    busy = snapshot(session(1, state=ACTIVE), session(2), session(3), used=50)
    busy = replace(busy, watcher=replace(busy.watcher, pid=9))
    match = replace(DRY.match, states=(ACTIVE,), idle_for=None, running_for=Span(1))
    cancelling = replace(DRY, match=match, action=Action.CANCEL)
    _, memory = rehearse(busy, Memory.of(busy), cancelling)
    assert memory.has_rehearsed(busy.sessions[0], Mode.DRY_RUN)
    assert memory.without_rehearsed(busy, Mode.DRY_RUN) == busy


def test_whom_a_rehearsal_would_terminate_is_gone_from_its_slot() -> None:
    seen = snapshot(*sessions(2), used=50)
    _, memory = rehearse(seen, Memory.of(seen), replace(DRY, pace=1))
    left = memory.without_rehearsed(seen, Mode.DRY_RUN)
    assert ([one.id.pid for one in left.sessions], left.slots.used) == ([101], 49)
    assert memory.without_rehearsed(seen, Mode.ENFORCE) == seen


def test_a_walsender_whose_end_was_rehearsed_had_no_slot_to_free() -> None:
    seen = snapshot(session(kind=WALSENDER), used=50)
    _, memory = rehearse(seen, Memory.of(seen), replace(DRY, despite=frozenset({"replication"})))
    left = memory.without_rehearsed(seen, Mode.DRY_RUN)
    assert (left.sessions, left.slots.used) == ((), 50)


def test_reaps_and_rehearsals_stand_with_the_longest_idle_first() -> None:
    seen = snapshot(session(1, idle="20m"), session(2, idle="40m"), session(3, idle="30m"))
    seen = replace(seen, watcher=replace(seen.watcher, pid=9))
    decided = plan(seen, DRY, REAL)
    assert pids(decided.reaps) == pids(decided.rehearsals) == [2, 3, 1]


def test_every_reap_carries_the_action_of_its_policy() -> None:
    running = replace(DRY.match, states=(ACTIVE,), idle_for=None, running_for=Span(1))
    cancelling = replace(REAL, match=running, action=Action.CANCEL)
    answer = plan(snapshot(session(state=ACTIVE)), cancelling).verdicts[0]
    assert isinstance(answer, Reap)
    assert answer.action is Action.CANCEL
