"""A pool that refills at once is told from an application that comes all the time, and is left alone."""

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.memory import Memory
from reaper.policy.plan import SkipReason
from reaper.policy.refill_guard import (
    DEFAULT_REFILL_GUARD,
    Group,
    PausedGroup,
    RefillCounts,
    RefillGuard,
    refill,
)
from reaper.policy.rules import Mode, SafetyLimit, When
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp, parse_duration

from .build import NOW, later, pids, plan, policy, session, sessions, skipped, snapshot
from .hostile import PROPERTY, World, worlds

REFILL_GUARD = RefillGuard(
    within=parse_duration("10s"),
    share=0.9,
    acts=10,
    pause=parse_duration("10m"),
    longest=parse_duration("1h"),
)
REAL = policy("real")
GROUP = Group("real", session().identity)


def at(*seconds: float) -> list[Timestamp]:
    return [Timestamp(NOW + round(each * SECOND)) for each in seconds]


def places(ends: list[Timestamp], came: list[Timestamp], before: int = 0) -> int:
    return refill(ends, came, before, REFILL_GUARD).places


def test_a_newcomer_soon_after_an_end_takes_its_place() -> None:
    assert places(at(0, 0.1, 0.2), at(0.5, 0.6, 9)) == 3


def test_who_came_before_the_end_or_long_after_it_took_no_place() -> None:
    assert places(at(0), at(-0.001)) == 0
    assert places(at(0), at(10.001)) == 0
    assert places(at(0), at(10)) == 1


def test_one_newcomer_takes_one_place() -> None:
    assert places(at(*range(10)), at(9.5)) == 1


def test_newcomers_are_matched_each_with_an_end_before_them() -> None:
    assert places(at(0, 5), at(1, 2)) == 1
    assert places(at(0, 5), at(1, 6)) == 2


def test_who_come_all_the_time_take_nobodys_place() -> None:
    every_second = at(*range(11))
    assert places(at(0), every_second, before=10) == 0
    assert places(at(0, 1, 2), every_second, before=10) == 0


def test_a_pool_that_refills_beside_a_few_strangers_still_does() -> None:
    assert places(at(*[0.0] * 10), at(*[0.5] * 10, 7), before=1) == 10


def test_whom_it_has_counted_is_told_so_that_nobody_is_counted_twice() -> None:
    assert refill(at(0), at(0.5, 0.6), 0, REFILL_GUARD).counted == at(0.5)[0]


def after(counts: RefillCounts, terminated: int, refilled: int) -> RefillCounts:
    return counts.after(terminated, refilled, group=GROUP, guard=REFILL_GUARD, now=NOW)


def test_below_the_number_of_terminations_the_guard_does_not_decide() -> None:
    assert after(RefillCounts(), 9, 9).paused is None


def test_when_nearly_all_were_refilled_the_group_pauses_each_time_longer_up_to_the_limit() -> None:
    counts, pauses = RefillCounts(), []
    for _ in range(5):
        counts = after(after(counts, 5, 5), 5, 4)
        assert counts.paused is not None
        pauses.append(Duration(counts.paused.until - NOW))
    assert pauses == [parse_duration(each) for each in ("10m", "20m", "40m", "1h", "1h")]


def test_a_group_that_no_longer_refills_starts_again() -> None:
    twice = after(after(RefillCounts(), 10, 10), 10, 10)
    assert twice.pauses == 2
    calm = after(twice, 10, 3)
    assert (calm.pauses, calm.paused) == (0, None)
    assert after(calm, 10, 10).paused is None  # 11 of 15
    assert after(after(calm, 10, 10), 20, 20).paused is not None


def test_a_leak_in_which_every_third_termination_is_refilled_is_not_paused() -> None:
    counts = RefillCounts()
    for _ in range(100):
        counts = after(counts, 3, 1)
        assert counts.paused is None


def test_the_reason_says_why_until_when_and_what_to_do() -> None:
    paused = after(RefillCounts(), 10, 10).paused
    assert paused
    assert (paused.at, paused.until) == (NOW, later(NOW, by=parse_duration("10m")))
    assert paused.reason == (
        "refill guard: 10 of 10 terminated sessions were replaced within 10s; "
        "paused until 2025-06-18T12:10:00Z: make this pool smaller"
    )


def pause_of(group: Group, until: Timestamp) -> PausedGroup:
    return PausedGroup(group, NOW, until, 9, 10, "refill guard: replaced")


def with_paused(seen: Snapshot, *, name: str = "real", until: Timestamp | None = None) -> Memory:
    group = Group(name, seen.sessions[0].identity)
    paused = pause_of(group, later(NOW, by=1) if until is None else until)
    return replace(Memory.of(seen), paused=MappingProxyType({group: paused}))


def test_who_belongs_to_a_group_that_is_left_alone_is_spared_with_the_reason() -> None:
    seen = snapshot(session())
    (answer,) = plan(seen, REAL, memory=with_paused(seen)).decisions
    assert (skipped(answer).by, skipped(answer).reason) == (SkipReason.REFILL_GUARD, "refill guard: replaced")


@pytest.mark.parametrize("key", ["role", "database", "application", "client"])
def test_another_group_is_not_left_alone(key: str) -> None:
    seen = snapshot(session(), session(101, **{key: "other"}))  # type: ignore[arg-type]  # one of four texts
    assert pids(plan(seen, REAL, memory=with_paused(seen)).candidates) == [101]


def test_when_the_pause_is_over_it_is_tried_again() -> None:
    seen = snapshot(session())
    assert plan(seen, REAL, memory=with_paused(seen, until=NOW)).candidates


def test_another_policy_does_not_leave_it_alone() -> None:
    seen = snapshot(session())
    assert plan(seen, REAL, memory=with_paused(seen, name="another")).candidates


def test_a_policy_that_says_churn_off_takes_on_and_on() -> None:
    seen = snapshot(session())
    assert plan(seen, replace(REAL, refill_guard=None), memory=with_paused(seen)).candidates


def test_it_is_left_alone_under_pressure_too_for_what_it_frees_is_taken_again_at_once() -> None:
    seen = snapshot(session(), used=99)
    assert not plan(seen, replace(REAL, when=When(0.9)), memory=with_paused(seen)).candidates


def test_those_that_are_left_alone_keep_no_place_in_the_pace() -> None:
    seen = snapshot(session(1, idle="2h"), session(2, application="web-2"))
    decided = plan(seen, replace(REAL, max_per_cycle=1), memory=with_paused(seen))
    assert pids(decided.candidates) == [2]


def test_a_brake_counts_them_all_the_same() -> None:
    seen = snapshot(*sessions(6), session(1, application="web-2"))
    braking = replace(REAL, safety_limit=SafetyLimit(share=0.5, above=2))
    decided = plan(seen, braking, memory=with_paused(seen))
    assert (len(decided.trips), decided.candidates) == (1, ())


def test_a_dry_run_of_an_enforcing_policy_skips_a_paused_group() -> None:
    seen = snapshot(session())
    dry_running = policy("dry", mode=Mode.DRY_RUN)
    decided = plan(seen, REAL, dry_running, memory=with_paused(seen))
    assert (decided.candidates, decided.dry_run_candidates) == ((), ())


@PROPERTY
@given(worlds(), st.integers(-1, 1), st.data())
def test_leaving_groups_alone_only_ever_spares_more(world: World, offset: int, data: st.DataObject) -> None:
    seen = world.snapshot
    if not seen.sessions:
        return
    # Without a pace: who is left alone makes room for the next.
    policies = tuple(replace(one, max_per_cycle=1_000) for one in world.rules.policies)
    one, who = data.draw(st.sampled_from(policies)), data.draw(st.sampled_from(seen.sessions))
    group = Group(one.name, who.identity)
    without = replace(world.memory, paused={})
    alone = replace(without, paused={group: pause_of(group, Timestamp(seen.at + offset))})

    def taken(memory: Memory) -> set[object]:
        decided = plan(seen, *policies, protect=world.rules.protect, memory=memory)
        return {(candidate.session.id, candidate.policy.name) for candidate in decided.candidates}

    assert taken(alone) <= taken(without)


def test_by_default_it_is_on_and_careful() -> None:
    assert REAL.refill_guard == DEFAULT_REFILL_GUARD
    assert DEFAULT_REFILL_GUARD.share * DEFAULT_REFILL_GUARD.acts == 9
