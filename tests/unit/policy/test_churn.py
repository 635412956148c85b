"""A pool that refills at once is told from an application that comes all the time, and is left alone."""

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.memory import Memory
from reaper.policy.plan import Spared
from reaper.policy.refill_guard import DEFAULT_CHURN, BackOff, Churn, Evidence, Group, back_off, refill
from reaper.policy.rules import Brake, Mode, When
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Instant, Span, parse_span

from .build import NOW, later, pids, plan, policy, session, sessions, snapshot, spared
from .hostile import PROPERTY, World, worlds

CHURN = Churn(
    within=parse_span("10s"),
    share=0.9,
    acts=10,
    pause=parse_span("10m"),
    longest=parse_span("1h"),
)
REAL = policy("real")


def at(*seconds: float) -> list[Instant]:
    return [Instant(NOW + round(each * SECOND)) for each in seconds]


def places(ends: list[Instant], came: list[Instant], before: int = 0) -> int:
    return refill(ends, came, before, CHURN).places


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
    assert refill(at(0), at(0.5, 0.6), 0, CHURN).counted == at(0.5)[0]


def judged(evidence: Evidence, acts: int, came_back: int) -> Evidence:
    return evidence.judged(acts, came_back, churn=CHURN, now=NOW)


def test_few_acts_say_nothing_yet() -> None:
    assert judged(Evidence(), 9, 9).until is None


def test_when_nearly_all_came_back_the_group_is_left_alone_and_longer_each_time_but_not_for_ever() -> None:
    evidence, pauses = Evidence(), []
    for _ in range(5):
        evidence = judged(judged(evidence, 5, 5), 5, 4)
        assert evidence.until is not None
        pauses.append(Span(evidence.until - NOW))
    assert pauses == [parse_span(each) for each in ("10m", "20m", "40m", "1h", "1h")]


def test_a_group_that_calms_down_begins_anew() -> None:
    churning = judged(judged(Evidence(), 10, 10), 10, 10)
    assert churning.pauses == 2
    calm = judged(churning, 10, 3)
    assert (calm.pauses, calm.until) == (0, None)
    assert judged(calm, 10, 10).until is None  # 11 of 15
    assert judged(judged(calm, 10, 10), 20, 20).until is not None


def test_a_leak_of_which_every_third_is_followed_by_somebody_is_no_churn() -> None:
    evidence = Evidence()
    for _ in range(100):
        evidence = judged(evidence, 3, 1)
        assert evidence.until is None


def test_it_says_why_until_when_and_what_to_do() -> None:
    found = back_off(judged(Evidence(), 10, 10), CHURN)
    assert found
    assert found.until == later(NOW, by=parse_span("10m"))
    assert found.reason == (
        "churn: 10 of 10 came back within 10s; left alone until 2025-06-18T12:10:00Z: size this pool down"
    )
    assert back_off(Evidence(acts=3, refilled=3), CHURN) is None


def leaving_alone(seen: Snapshot, *, name: str = "real", until: Instant | None = None) -> Memory:
    left_alone = BackOff(later(NOW, by=1) if until is None else until, "churn: it refills")
    group = Group(name, seen.sessions[0].identity)
    return replace(Memory.of(seen), left_alone=MappingProxyType({group: left_alone}))


def test_who_belongs_to_a_group_that_is_left_alone_is_spared_with_the_reason() -> None:
    seen = snapshot(session())
    (answer,) = plan(seen, REAL, memory=leaving_alone(seen)).verdicts
    assert (spared(answer).by, spared(answer).reason) == (Spared.CHURN, "churn: it refills")


@pytest.mark.parametrize("key", ["role", "database", "application", "client"])
def test_another_group_is_not_left_alone(key: str) -> None:
    seen = snapshot(session(), session(101, **{key: "other"}))  # type: ignore[arg-type]  # one of four texts
    assert pids(plan(seen, REAL, memory=leaving_alone(seen)).reaps) == [101]


def test_when_the_pause_is_over_it_is_tried_again() -> None:
    seen = snapshot(session())
    assert plan(seen, REAL, memory=leaving_alone(seen, until=NOW)).reaps


def test_another_policy_does_not_leave_it_alone() -> None:
    seen = snapshot(session())
    assert plan(seen, REAL, memory=leaving_alone(seen, name="another")).reaps


def test_a_policy_that_says_churn_off_takes_on_and_on() -> None:
    seen = snapshot(session())
    assert plan(seen, replace(REAL, churn=None), memory=leaving_alone(seen)).reaps


def test_it_is_left_alone_under_pressure_too_for_what_it_frees_is_taken_again_at_once() -> None:
    seen = snapshot(session(), used=99)
    assert not plan(seen, replace(REAL, when=When(0.9)), memory=leaving_alone(seen)).reaps


def test_those_that_are_left_alone_keep_no_place_in_the_pace() -> None:
    seen = snapshot(session(1, idle="2h"), session(2, application="web-2"))
    decided = plan(seen, replace(REAL, pace=1), memory=leaving_alone(seen))
    assert pids(decided.reaps) == [2]


def test_a_brake_counts_them_all_the_same() -> None:
    seen = snapshot(*sessions(6), session(1, application="web-2"))
    braking = replace(REAL, brake=Brake(share=0.5, above=2))
    decided = plan(seen, braking, memory=leaving_alone(seen))
    assert (len(decided.brakes), decided.reaps) == (1, ())


def test_a_rehearsal_of_what_enforces_leaves_it_alone_as_well() -> None:
    seen = snapshot(session())
    rehearsing = policy("dry", mode=Mode.DRY_RUN)
    decided = plan(seen, REAL, rehearsing, memory=leaving_alone(seen))
    assert (decided.reaps, decided.rehearsals) == ((), ())


@PROPERTY
@given(worlds(), st.integers(-1, 1), st.data())
def test_leaving_groups_alone_only_ever_spares_more(world: World, offset: int, data: st.DataObject) -> None:
    seen = world.snapshot
    if not seen.sessions:
        return
    # Without a pace: who is left alone makes room for the next.
    policies = tuple(replace(one, pace=1_000) for one in world.rules.policies)
    one, who = data.draw(st.sampled_from(policies)), data.draw(st.sampled_from(seen.sessions))
    group = Group(one.name, who.identity)
    without = replace(world.memory, left_alone={})
    alone = replace(without, left_alone={group: BackOff(Instant(seen.at + offset), "churn")})

    def taken(memory: Memory) -> set[object]:
        decided = plan(seen, *policies, protect=world.rules.protect, memory=memory)
        return {(reap.session.id, reap.policy.name) for reap in decided.reaps}

    assert taken(alone) <= taken(without)


def test_by_default_it_is_on_and_careful() -> None:
    assert REAL.churn == DEFAULT_CHURN
    assert DEFAULT_CHURN.share * DEFAULT_CHURN.acts == 9
