"""max_per_cycle, and the memory from one cycle to the next: seen sessions and failed tries."""

from dataclasses import replace

import pytest

from reaper.policy.match import Match
from reaper.policy.memory import MAX_TRIES, Memory, Tried
from reaper.policy.plan import Candidate, Outcome, Plan, Result, Skip, SkipReason
from reaper.policy.rules import DEFAULT_MAX_PER_CYCLE, Action, Policy
from reaper.policy.session import ACTIVE, Snapshot
from reaper.policy.time import parse_duration

from .build import NOW, ago, pids, plan, policy, session, sessions, skipped, snapshot


def paced(max_per_cycle: int) -> Policy:
    return replace(policy(), max_per_cycle=max_per_cycle, safety_limit=None)


def test_max_per_cycle_takes_the_longest_idle_sessions_first() -> None:
    backwards = tuple(reversed(sessions(5)))
    decided = plan(snapshot(*backwards), paced(2))
    assert pids(decided.candidates) == [100, 101]
    assert [skip.by for skip in decided.skips] == [SkipReason.MAX_PER_CYCLE] * 3


def test_a_session_above_max_per_cycle_shows_the_number_before_it() -> None:
    decided = plan(snapshot(*sessions(4)), paced(2))
    assert [skip.reason for skip in decided.skips] == [
        "max_per_cycle: 2 per cycle, 2 longer idle ones first",
        "max_per_cycle: 2 per cycle, 3 longer idle ones first",
    ]


def test_by_default_ten_sessions_are_terminated_in_a_cycle() -> None:
    assert DEFAULT_MAX_PER_CYCLE == 10
    decided = plan(snapshot(*sessions(12)), replace(policy(), safety_limit=None))
    assert len(decided.candidates) == 10
    assert decided.skips[0].reason == "max_per_cycle: 10 per cycle, 10 longer idle ones first"


def test_of_equally_idle_sessions_the_lower_pid_comes_first() -> None:
    assert pids(plan(snapshot(session(1002), session(1001)), paced(1)).candidates) == [1001]


def test_each_policy_has_its_own_max_per_cycle() -> None:
    web = replace(paced(1), match=replace(policy().match, states=("idle",)))
    rest = replace(paced(1), name="rest", match=replace(policy().match, states=("idle in transaction",)))
    seen = snapshot(*sessions(3), *(session(200 + rank, state="idle in transaction") for rank in range(3)))
    assert pids(plan(seen, web, rest).candidates) == [100, 200]


def test_no_session_is_terminated_in_the_first_snapshot_that_shows_it() -> None:
    answer = skipped(plan(snapshot(session()), policy(), memory=Memory()).decisions[0])
    assert (answer.by, answer.reason) == (
        SkipReason.FIRST_SIGHTING,
        "first sighting: a second snapshot must confirm it",
    )


def test_a_session_is_terminated_in_the_second_snapshot_that_shows_it() -> None:
    seen = snapshot(session())
    assert plan(seen, policy(), memory=Memory().after(seen)).candidates


def test_a_reused_pid_counts_as_seen_for_the_first_time() -> None:
    before, after = snapshot(session(100, connected="9h")), snapshot(session(100, connected="8h"))
    assert (
        skipped(plan(after, policy(), memory=Memory.of(before)).decisions[0]).by is SkipReason.FIRST_SIGHTING
    )


def test_a_session_missing_from_a_snapshot_is_forgotten() -> None:
    seen, empty = snapshot(session()), snapshot()
    memory = Memory().after(seen).after(empty)
    assert memory == Memory()


def test_sessions_seen_for_the_first_time_do_not_count_for_max_per_cycle() -> None:
    old, left_out = session(100, idle="5h", connected="6h"), session(101, idle="1h")
    decided = plan(snapshot(old, left_out), paced(1), memory=Memory.of(snapshot(left_out)))
    assert pids(decided.candidates) == [101]


def cycle(seen: Snapshot, memory: Memory, result: Result, *policies: Policy) -> tuple[Plan, Memory]:
    """One cycle in which every reap has the same outcome."""
    decided = plan(seen, *policies, memory=memory)
    candidates: tuple[Candidate, ...] = (*decided.candidates, *decided.dry_run_candidates)
    return decided, memory.after(seen, [(candidate, Outcome(result=result)) for candidate in candidates])


def test_a_session_that_survives_three_signals_is_left_alone() -> None:
    seen = snapshot(session())
    memory = Memory.of(seen)
    for _ in range(MAX_TRIES):
        decided, memory = cycle(seen, memory, Result.SIGNALLED, policy())
        assert decided.candidates
    last, _ = cycle(seen, memory, Result.SIGNALLED, policy())
    (answer,) = last.decisions
    assert isinstance(answer, Skip)
    assert (answer.by, answer.reason) == (
        SkipReason.NO_EFFECT,
        "no effect: tried 3 times, look at the server",
    )


def test_a_session_that_survived_its_signals_does_not_count_for_max_per_cycle() -> None:
    stuck, next_one = session(100, idle="90m"), session(101)
    seen = snapshot(stuck, next_one)
    memory = replace(Memory.of(seen), no_effect={Tried.of(stuck, Action.TERMINATE): MAX_TRIES})
    assert pids(plan(seen, paced(1), memory=memory).candidates) == [101]


NO_EFFECT = (Result.SIGNALLED, Result.DENIED, Result.UNKNOWN)


@pytest.mark.parametrize("result", [result for result in Result if result not in NO_EFFECT])
def test_only_results_without_effect_count_as_failed_tries(result: Result) -> None:
    seen = snapshot(session())
    _, memory = cycle(seen, Memory.of(seen), result, policy())
    assert memory.no_effect == {}


@pytest.mark.parametrize("result", NO_EFFECT)
def test_failed_tries_are_forgotten_with_the_session(result: Result) -> None:
    seen = snapshot(session())
    _, memory = cycle(seen, Memory.of(seen), result, policy())
    assert memory.no_effect == {Tried.of(session(), Action.TERMINATE): 1}
    assert memory.after(snapshot()).no_effect == {}


def test_a_statement_that_no_cancel_ended_can_still_be_terminated() -> None:
    statement = session(state=ACTIVE)
    match = Match(states=(ACTIVE,), running_for=parse_duration("10m"))
    cancel = replace(policy("cancel", match=match), action=Action.CANCEL)
    terminate = policy("terminate", match=match)
    vain = {Tried.of(statement, Action.CANCEL): MAX_TRIES}
    memory = replace(Memory.of(snapshot(statement)), no_effect=vain)
    assert plan(snapshot(statement), cancel, memory=memory).candidates == ()
    assert len(plan(snapshot(statement), terminate, memory=memory).candidates) == 1


def test_the_plan_of_a_single_snapshot_counts_all_sessions_as_seen() -> None:
    assert Memory.of(snapshot(session())).seen == {session().id}


def test_ages_use_the_clock_of_the_snapshot() -> None:
    seen = session(connected="9d", idle="8d")
    earlier = snapshot(seen, at=ago("7d"))
    assert earlier.at < NOW
    assert plan(earlier, policy()).candidates[0].reason == "idle 1d, limit 10m"
