"""A replay decides as the service would have decided, at the moments of its cycles."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.insight.backtest.replay import Replay, ReplayStep, Rhythm
from reaper.insight.recorded import CycleMark, PartialSnapshot
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import Outcome, Result
from reaper.policy.rules import Action, Policy, Rules, When, Window
from reaper.policy.selector import Selector
from reaper.policy.session import CLIENT_BACKEND, Facts, Session, Slots, Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp, parse_duration
from tests.unit.policy.build import IDLE_10M, NOW, globs, later, policy, session, sessions, snapshot
from tests.unit.policy.hostile import worlds

from .readings import recorded

RHYTHM: Final = Rhythm(Duration(10 * SECOND), Duration(SECOND // 4))
STEP: Final = 10 * SECOND
SOON: Final = 0.025
"""The second cycle, which must agree with the first, comes a precision later."""


def at(steps: float) -> Timestamp:
    return later(NOW, by=round(steps * STEP))


def seen(number: float, *sessions: Session, used: int = 10) -> Snapshot:
    """A snapshot so many steps of ten seconds later."""
    return snapshot(*sessions, at=at(number), used=used)


def replayed(
    *policies: Policy,
    stream: Sequence[Snapshot],
    rhythm: Rhythm = RHYTHM,
    partial: Sequence[PartialSnapshot] = (),
    cycles: Sequence[CycleMark] = (),
) -> list[ReplayStep]:
    replay = Replay(Rules(policies=policies), rhythm)
    return [replay.read(each) for each in recorded(stream, partial=partial, cycles=cycles)]


def terminated(steps: Sequence[ReplayStep]) -> list[tuple[Timestamp, int]]:
    return [(one.at, one.candidate.session.id.pid) for step in steps for one in step.terminations]


def used(one: Session, when: float) -> Session:
    """The session after its client has used it at this step."""
    return replace(one, state_change=at(when), query_start=at(when))


DUE_AT_3: Final = session(7, idle="9m57s")


def test_a_session_is_terminated_at_the_moment_at_which_it_falls_due() -> None:
    assert terminated(replayed(policy(), stream=[seen(0, DUE_AT_3), seen(1, DUE_AT_3)])) == [(at(0.3), 7)]


def test_no_session_is_terminated_on_first_sight() -> None:
    one = session(7)
    assert terminated(replayed(policy(), stream=[seen(0, one)])) == []
    assert terminated(replayed(policy(), stream=[seen(0, one), seen(1, one)])) == [(at(SOON), 7)]


def test_a_session_that_came_between_two_snapshots_was_idle_since_the_later_one_says() -> None:
    soon = policy(match=replace(IDLE_10M, idle_for=Duration(2 * SECOND)))
    came = used(session(7, connected="0s"), 0.4)
    came = replace(came, id=came.id._replace(backend_start=at(0.3)))
    steps = replayed(
        soon, stream=[seen(0), seen(1, came), seen(2, came)], rhythm=Rhythm(Duration(SECOND), Duration(1))
    )
    assert terminated(steps) == [(at(0.6), 7)]


def test_a_session_that_fell_due_and_was_used_or_left_is_uncertain() -> None:
    for later_on, uncertain in (([used(DUE_AT_3, 0.9)], 1), ([], 1), ([used(DUE_AT_3, 0.2)], 0)):
        steps = replayed(policy(), stream=[seen(0, DUE_AT_3), seen(1, *later_on)])
        assert terminated(steps) == []
        assert [step.uncertain for step in steps] == [0, uncertain]


def test_a_partial_snapshot_after_the_deadline_makes_it_certain() -> None:
    stream = [seen(0, DUE_AT_3), seen(1, used(DUE_AT_3, 0.9))]
    steps = replayed(policy(), stream=stream, partial=[PartialSnapshot(at(0.4), [DUE_AT_3])])
    assert terminated(steps) == [(at(0.3), 7)]
    assert [step.uncertain for step in steps] == [0, 0]
    assert steps[-1].back == [DUE_AT_3.id]
    too_soon = replayed(policy(), stream=stream, partial=[PartialSnapshot(at(0.25), [DUE_AT_3])])
    assert terminated(too_soon) == []


def test_recorded_cycles_are_the_cycles() -> None:
    stream = [seen(0, DUE_AT_3), seen(1, DUE_AT_3)]
    assert terminated(replayed(policy(), stream=stream, cycles=[CycleMark(at(0.31), 10)])) == [(at(0.31), 7)]


def test_a_session_that_falls_due_after_the_last_cycle_waits_for_the_next_one() -> None:
    one = session(7, idle="9m50s300ms")
    replay = Replay(Rules(policies=(policy(),)), Rhythm(Duration(10 * SECOND), Duration(SECOND)))
    stream = recorded([seen(0, one), seen(1, one), seen(2, one)])
    stream[1].cycles = [CycleMark(at(0.95), 10)]
    assert terminated([replay.read(each) for each in stream]) == [(at(1.05), 7)]


def test_the_limit_of_a_cycle_leaves_the_rest_to_later_cycles() -> None:
    many = sessions(25, idle="1h")
    steps = replayed(replace(policy(), safety_limit=None), stream=[seen(n, *many) for n in range(5)])
    moments = [moment for moment, _ in terminated(steps)]
    assert moments == [*[at(SOON)] * 10, *[at(1 + SOON)] * 10, *[at(2 + SOON)] * 5]


def test_a_safety_limit_stops_all_and_is_reported_once() -> None:
    steps = replayed(policy(), stream=[seen(n, *sessions(10, idle="1h"), used=10) for n in range(4)])
    assert terminated(steps) == []
    assert [len(step.trips) for step in steps] == [1, 0, 0, 0]


def test_a_terminated_session_counts_as_gone_until_it_is_used_again() -> None:
    one, other = session(7), session(8, idle="1m")
    woke = used(one, 1.5)
    stream = [seen(0, one, other), seen(1, one, other), seen(2, woke, other), seen(3, woke, other)]
    steps = replayed(policy(), stream=stream)
    assert terminated(steps) == [(at(SOON), 7)]
    assert [step.slots[-1].would for step in steps] == [10, 9, 10, 10]
    assert [step.back for step in steps] == [[], [], [one.id], []]


def test_a_session_that_was_used_is_terminated_again_when_it_falls_due_again() -> None:
    one = session(7)
    stream = [seen(0, one), seen(1, one), *(seen(n, used(one, 1.5)) for n in range(2, 65))]
    assert terminated(replayed(policy(), stream=stream)) == [(at(SOON), 7), (at(61.5), 7)]


def test_a_cancelled_statement_frees_no_slot() -> None:
    busy = policy(
        match=replace(IDLE_10M, states=("active",), idle_for=None, running_for=parse_duration("10m"))
    )
    stream = [seen(n, session(7, state="active")) for n in range(3)]
    steps = replayed(replace(busy, action=Action.CANCEL), stream=stream)
    assert terminated(steps) == [(at(SOON), 7)]
    assert steps[-1].slots[-1].would == 10


def test_after_a_gap_all_sessions_are_new() -> None:
    one = session(7)
    steps = replayed(policy(), stream=[seen(0, one), seen(100, one), seen(101, one)])
    assert terminated(steps) == [(at(100 + SOON), 7)]
    assert [step.gap for step in steps] == [None, 100 * STEP, None]


def test_after_a_jump_of_the_clock_all_sessions_are_new_and_ages_count_from_there() -> None:
    one = session(7)
    jumped = [seen(n, replace(one, counted_from=at(2))) for n in (2, 3, 4)]
    steps = replayed(policy(), stream=[seen(0, one), seen(1, session(7, idle="9m")), *jumped])
    assert terminated(steps) == []
    assert steps[2].gap is not None


LATER: Final = Window(
    days=frozenset(range(7)), start=12 * 60 + 1, end=13 * 60, zone=ZoneInfo("UTC"), text="later"
)
EMERGENCY: Final = replace(policy("emergency"), when=When(0.5))


def test_a_policy_acts_when_its_time_or_its_emergency_begins() -> None:
    stream = [seen(n, session(7), used=10 + 10 * n) for n in range(10)]
    assert terminated(replayed(replace(policy(), during=(LATER,)), stream=stream)) == [(at(6), 7)]
    assert terminated(replayed(EMERGENCY, stream=stream)) == [(at(4), 7)]
    allowing = replace(policy("allowing"), allowlist=Selector(application=globs("web-*")))
    assert terminated(replayed(allowing, EMERGENCY, stream=stream)) == [(at(4), 7)]


def test_a_blocking_session_and_one_that_holds_back_vacuum_are_terminated_once_they_do() -> None:
    blocking = policy(match=replace(IDLE_10M, blocking=True))
    waited = Facts(advisory_lock_holders=frozenset(), waiters={7: 1})
    stream = [seen(n, session(7)) for n in range(3)]
    stream += [replace(seen(n, session(7)), facts=waited) for n in (3, 4, 5)]
    assert terminated(replayed(blocking, stream=stream)) == [(at(3), 7)]
    vacuum = policy(match=replace(IDLE_10M, xmin_age=100))
    stream = [seen(n, session(7, xid_age=95 + 2 * n)) for n in range(6)]
    assert terminated(replayed(vacuum, stream=stream)) == [(at(3), 7)]


@settings(max_examples=60)
@given(world=worlds(), data=st.data())
def test_each_snapshot_gets_the_plan_of_a_dry_run(world: object, data: st.DataObject) -> None:
    """A plain decision about all sessions, with a plain memory, terminates the same ones."""
    stream = evolve(world.snapshot, data)  # type: ignore[attr-defined]
    rules = world.rules  # type: ignore[attr-defined]
    replay, memory = Replay(rules, Rhythm(Duration(STEP), Duration(STEP))), Memory()
    for each, whole in zip(recorded(stream), stream, strict=True):
        plan = decide(snapshot=whole, rules=rules, memory=memory)
        candidates = (*plan.candidates, *plan.dry_run_candidates)
        new = [trip.policy.name for trip in plan.trips if trip.policy.name not in memory.tripped]
        settled = [(candidate, Outcome(result=Result.DRY_RUN)) for candidate in candidates]
        memory = memory.after(whole, settled, plan.trips)
        step = replay.read(each)
        found = [
            (one.candidate.policy.name, one.candidate.session.id, one.candidate.reason)
            for one in step.terminations
        ]
        expected = [
            (candidate.policy.name, candidate.session.id, candidate.reason) for candidate in candidates
        ]
        assert sorted(found) == sorted(expected)
        assert [trip.policy.name for _, trip in step.trips] == new
        assert all(one.at == whole.at for one in step.terminations)


def evolve(first: Snapshot, data: st.DataObject) -> list[Snapshot]:
    """The same server a few times more, ten seconds apart: some sessions are used, some leave."""
    stream, now = [], counted(first)
    for number in range(data.draw(st.integers(1, 6))):
        moment = later(first.at, by=number * STEP)
        kept = [
            one
            for one in now.sessions
            if one.id.backend_start <= first.at
            and (number == 0 or data.draw(st.sampled_from([True] * 5 + [False])))
        ]
        if number:
            kept = [
                replace(one, state_change=moment, query_start=moment)
                if data.draw(st.sampled_from([False] * 4 + [True]))
                else one
                for one in kept
            ]
        now = counted(replace(now, at=moment, sessions=tuple(kept)))
        stream.append(now)
    return stream


def counted(snapshot: Snapshot) -> Snapshot:
    """With as many slots in use as there are clients."""
    count = sum(one.kind == CLIENT_BACKEND for one in snapshot.sessions)
    slots = Slots(total=snapshot.slots.total, reserved=snapshot.slots.reserved, used=count)
    return replace(snapshot, slots=slots)
