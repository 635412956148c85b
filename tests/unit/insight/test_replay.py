"""A history is judged as the service would have judged it, at the moments at which it would have looked."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

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
from reaper.policy.time import SECOND, Instant, Span, parse_span
from tests.unit.policy.build import IDLE_10M, NOW, globs, later, policy, session, sessions, snapshot
from tests.unit.policy.hostile import worlds

from .readings import recorded

RHYTHM: Final = Rhythm(Span(10 * SECOND), Span(SECOND // 4))
STEP: Final = 10 * SECOND
SOON: Final = 0.025
"""The second look, that must agree with the first, comes a precision later."""


def replayed(
    rules: Rules, stream: Sequence[Snapshot], *, rhythm: Rhythm = RHYTHM, **told: object
) -> list[ReplayStep]:
    replay = Replay(rules, rhythm)
    return [replay.read(reading) for reading in recorded(stream, **told)]  # type: ignore[arg-type]


def taken(stretches: Sequence[ReplayStep]) -> list[tuple[Instant, int]]:
    return [(one.at, one.reap.session.id.pid) for stretch in stretches for one in stretch.terminations]


def look(number: float, *seen: Session, used: int = 10) -> Snapshot:
    """A reading so many steps of ten seconds later."""
    return snapshot(*seen, at=at(number), used=used)


def at(steps: float) -> Instant:
    return later(NOW, by=round(steps * STEP))


def rules(*policies: Policy) -> Rules:
    return Rules(policies=policies)


def test_who_falls_due_between_two_readings_is_taken_at_that_very_moment() -> None:
    one = session(7, idle="9m57s")
    assert taken(replayed(rules(policy()), [look(0, one), look(1, one)])) == [(at(0.3), 7)]


def test_nobody_is_taken_on_first_sight() -> None:
    one = session(7)
    assert taken(replayed(rules(policy()), [look(0, one)])) == []
    assert taken(replayed(rules(policy()), [look(0, one), look(1, one)])) == [(at(SOON), 7)]


def test_who_came_between_two_readings_was_idle_from_what_the_later_one_tells() -> None:
    soon = policy(match=replace(IDLE_10M, idle_for=Span(2 * SECOND)))
    came = replace(session(7, connected="0s"), state_change=at(0.4), query_start=at(0.4))
    came = replace(came, id=came.id._replace(backend_start=at(0.3)))
    found = taken(
        replayed(rules(soon), [look(0), look(1, came), look(2, came)], rhythm=Rhythm(Span(SECOND), Span(1)))
    )
    assert found == [(at(0.6), 7)]


def test_who_changed_meanwhile_is_not_taken_but_told_to_be_uncertain() -> None:
    one = session(7, idle="9m57s")
    woke = replace(one, state_change=at(0.9), query_start=at(0.9))
    stretches = replayed(rules(policy()), [look(0, one), look(1, woke)])
    assert taken(stretches) == []
    assert [stretch.uncertain for stretch in stretches] == [0, 1]
    left = replayed(rules(policy()), [look(0, one), look(1)])
    assert [stretch.uncertain for stretch in left] == [0, 1]
    early = replace(one, state_change=at(0.2), query_start=at(0.2))
    assert [stretch.uncertain for stretch in replayed(rules(policy()), [look(0, one), look(1, early)])] == [
        0,
        0,
    ]


def test_who_was_sighted_after_the_deadline_is_certain() -> None:
    one = session(7, idle="9m57s")
    woke = replace(one, state_change=at(0.9), query_start=at(0.9))
    sighting = PartialSnapshot(at(0.4), [one])
    stretches = replayed(rules(policy()), [look(0, one), look(1, woke)], partial=[sighting])
    assert taken(stretches) == [(at(0.3), 7)]
    assert [stretch.uncertain for stretch in stretches] == [0, 0]
    assert stretches[-1].back == [one.id]
    too_soon = PartialSnapshot(at(0.25), [one])
    assert taken(replayed(rules(policy()), [look(0, one), look(1, woke)], partial=[too_soon])) == []


def test_where_the_service_is_known_to_have_looked_it_looks() -> None:
    one = session(7, idle="9m57s")
    looks = [CycleMark(at(0.31), 10)]
    assert taken(replayed(rules(policy()), [look(0, one), look(1, one)], cycles=looks)) == [(at(0.31), 7)]


def test_a_session_that_falls_due_after_the_last_cycle_waits_for_the_next_one() -> None:
    one = session(7, idle="9m50s300ms")
    rhythm = Rhythm(Span(10 * SECOND), Span(SECOND))
    stream = [look(0, one), look(1, one), look(2, one)]
    replay = Replay(rules(policy()), rhythm)
    cycles = [[], [CycleMark(at(0.95), 10)], []]
    steps = [
        replay.read(replace(each, cycles=marks)) for each, marks in zip(recorded(stream), cycles, strict=True)
    ]
    assert taken(steps) == [(at(1.05), 7)]


def test_a_pace_leaves_the_rest_to_later_looks() -> None:
    many = sessions(25, idle="1h")
    found = taken(replayed(rules(replace(policy(), brake=None)), [look(n, *many) for n in range(5)]))
    moments = [moment for moment, _ in found]
    assert moments == [*[at(SOON)] * 10, *[at(1 + SOON)] * 10, *[at(2 + SOON)] * 5]


def test_a_brake_acts_on_nobody_and_is_told_once() -> None:
    many = sessions(10, idle="1h")
    stretches = replayed(rules(policy()), [look(n, *many, used=10) for n in range(4)])
    assert taken(stretches) == []
    assert [len(stretch.trips) for stretch in stretches] == [1, 0, 0, 0]


def test_who_was_taken_counts_as_gone_until_its_client_uses_it_again() -> None:
    one, other = session(7), session(8, idle="1m")
    woke = replace(one, state_change=at(1.5), query_start=at(1.5))
    stream = [look(0, one, other), look(1, one, other), look(2, woke, other), look(3, woke, other)]
    stretches = replayed(rules(policy()), stream)
    assert taken(stretches) == [(at(SOON), 7)]
    assert [(s.slots[-1].used, s.slots[-1].would) for s in stretches] == [
        (10, 10),
        (10, 9),
        (10, 10),
        (10, 10),
    ]
    assert [stretch.back for stretch in stretches] == [[], [], [one.id], []]


def test_one_that_fell_asleep_again_is_taken_again() -> None:
    one = session(7)
    woke = replace(one, state_change=at(1.5), query_start=at(1.5))
    stream = [look(0, one), look(1, one), *(look(n, woke) for n in range(2, 65))]
    assert taken(replayed(rules(policy()), stream)) == [(at(SOON), 7), (at(61.5), 7)]


def test_a_cancelled_statement_frees_no_slot() -> None:
    busy = policy(match=replace(IDLE_10M, states=("active",), idle_for=None, running_for=parse_span("10m")))
    at_work = session(7, state="active")
    stretches = replayed(rules(replace(busy, action=Action.CANCEL)), [look(n, at_work) for n in range(3)])
    assert taken(stretches) == [(at(SOON), 7)]
    assert stretches[-1].slots[-1].would == 10


def test_readings_far_apart_leave_everybody_to_be_seen_for_the_first_time() -> None:
    one = session(7)
    stretches = replayed(rules(policy()), [look(0, one), look(100, one), look(101, one)])
    assert taken(stretches) == [(at(100 + SOON), 7)]
    assert [stretch.gap for stretch in stretches] == [None, 100 * STEP, None]


def test_a_clock_that_jumped_makes_everybody_new_and_ages_count_from_there() -> None:
    one = session(7)
    jumped = [look(n, replace(one, counted_from=at(2))) for n in (2, 3, 4)]
    stretches = replayed(rules(policy()), [look(0, one), look(1, session(7, idle="9m")), *jumped])
    assert taken(stretches) == []
    assert stretches[2].gap is not None


def test_a_policy_with_a_window_acts_when_it_opens() -> None:
    window = Window(days=frozenset(range(7)), start=12 * 60 + 1, end=13 * 60, zone=NOW_ZONE, text="later")
    found = taken(
        replayed(rules(replace(policy(), during=(window,))), [look(n, session(7)) for n in range(10)])
    )
    assert found == [(at(6), 7)]


def test_a_policy_for_the_emergency_acts_when_it_begins() -> None:
    emergency = replace(policy(), when=When(0.5))
    stream = [look(n, session(7), used=10 + 10 * n) for n in range(10)]
    assert taken(replayed(rules(emergency), stream)) == [(at(4), 7)]


def test_a_policy_that_begins_to_act_takes_those_whom_another_has_spared_all_along() -> None:
    sparing = replace(policy("sparing"), allowlist=Selector(application=globs("web-*")))
    emergency = replace(policy("emergency"), when=When(0.5))
    stream = [look(n, session(7), used=10 + 10 * n) for n in range(10)]
    assert taken(replayed(rules(sparing, emergency), stream)) == [(at(4), 7)]


def test_who_blocks_others_is_taken_when_it_does() -> None:
    blocking = policy(match=replace(IDLE_10M, blocking=True))
    stream = [look(n, session(7)) for n in range(6)]
    for number in (3, 4, 5):
        waited = Facts(advisory_lock_holders=frozenset(), waiters={7: 1})
        stream[number] = replace(stream[number], facts=waited)
    assert taken(replayed(rules(blocking), stream)) == [(at(3), 7)]


def test_who_comes_to_hold_back_vacuum_is_taken_then() -> None:
    vacuum = policy(match=replace(IDLE_10M, holds_back_vacuum=100))
    stream = [look(n, session(7, xid_age=95 + 2 * n)) for n in range(6)]
    assert taken(replayed(rules(vacuum), stream)) == [(at(3), 7)]


NOW_ZONE: Final = __import__("zoneinfo").ZoneInfo("UTC")


@settings(max_examples=60)
@given(world=worlds(), data=st.data())
def test_each_snapshot_gets_the_plan_of_a_dry_run(world: object, data: st.DataObject) -> None:
    """A plain decision about all sessions, with a plain memory, terminates the same ones."""
    stream = evolve(world.snapshot, data)  # type: ignore[attr-defined]
    rules = world.rules  # type: ignore[attr-defined]
    replay, memory = Replay(rules, Rhythm(Span(STEP), Span(STEP))), Memory()
    for each, seen in zip(recorded(stream), stream, strict=True):
        plan = decide(snapshot=seen, rules=rules, memory=memory)
        reaps = (*plan.reaps, *plan.rehearsals)
        new = [trip.policy.name for trip in plan.brakes if trip.policy.name not in memory.braked]
        settled = [(reap, Outcome(result=Result.REHEARSED)) for reap in reaps]
        memory = memory.after(seen, settled, plan.brakes)
        step = replay.read(each)
        found = [(one.reap.policy.name, one.reap.session.id, one.reap.reason) for one in step.terminations]
        expected = [(reap.policy.name, reap.session.id, reap.reason) for reap in reaps]
        assert sorted(found) == sorted(expected)
        assert [trip.policy.name for _, trip in step.trips] == new
        assert all(one.at == seen.at for one in step.terminations)


def evolve(first: Snapshot, data: st.DataObject) -> list[Snapshot]:
    """The same server a few times more, ten seconds apart: some wake, some leave, some come."""
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
    """With as many slots used as there are clients, as a look counts them."""
    used = sum(one.kind == CLIENT_BACKEND for one in snapshot.sessions)
    slots = Slots(total=snapshot.slots.total, reserved=snapshot.slots.reserved, used=used)
    return replace(snapshot, slots=slots)
