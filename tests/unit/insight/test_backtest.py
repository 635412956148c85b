"""What a backtest counts: who was taken, what became of them, the slots and the applications."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from reaper.insight.backtest.compare import Comparison
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import MAX_APPLICATIONS, MAX_BUCKETS, OTHERS, Backtest, Bucket, Timeline
from reaper.insight.recorded import PartialSnapshot
from reaper.policy.rules import Policy, Rules
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import SECOND, Instant, Span, parse_span
from tests.unit.policy.build import IDLE_10M, NOW, later, policy, session, snapshot

from .readings import recorded

RHYTHM: Final = Rhythm(Span(10 * SECOND), Span(SECOND // 4))
STEP: Final = 10 * SECOND


def at(steps: float) -> Instant:
    return later(NOW, by=round(steps * STEP))


def look(number: int, *seen: Session) -> Snapshot:
    return snapshot(*seen, at=at(number), used=len(seen))


def backtested(*policies: Policy, stream: Sequence[Snapshot]) -> Backtest:
    backtest = Backtest("orders", Rules(policies=policies), RHYTHM)
    for reading in recorded(stream):
        backtest.read(reading)
    backtest.end()
    return backtest


LEAK, BACK, LEFT, YOUNG = (
    session(7, application="leak"),
    session(8, application="pool"),
    session(9, application="leak", idle="30m"),
    session(10, application="pool", idle="1m"),
)
USED = replace(BACK, state_change=at(2.5), query_start=at(2.5))
STREAM: Final = [
    look(0, LEAK, BACK, LEFT, YOUNG),
    look(1, LEAK, BACK, LEFT, YOUNG),
    look(2, LEAK, BACK, LEFT, YOUNG),
    look(3, LEAK, USED, LEFT, YOUNG),
    look(4, LEAK, USED, YOUNG),
    *(look(number, LEAK, USED, YOUNG) for number in range(5, 50)),
]


def test_each_that_was_taken_has_a_fate() -> None:
    found = backtested(policy(), stream=STREAM)
    regret = found.hindsight.regret("leaked")
    assert (regret.revived, regret.left, regret.unused, regret.too_soon) == (1, 1, 0, 1)
    assert found.counts.terminations == {"leaked": 3}
    assert found.hindsight.regret_of_application("pool").revived == 1
    assert found.hindsight.regret_of_application("leak").left == 1


def test_who_stays_as_it_was_while_nobody_looks_is_taken_once() -> None:
    hour = 360
    stream = [look(n, LEAK) for n in (0, 1, hour, hour + 1, hour + 2)]
    found = backtested(policy(), stream=stream)
    assert found.counts.gaps == 1
    assert found.counts.terminations == {"leaked": 1}
    assert sum(step.terminations.get("leaked", 0) for step in found.counts.timeline.buckets.values()) == 1
    assert found.hindsight.regret("leaked").acts == 1
    leaks = found.counts.applications["leak"]
    assert (leaks.terminated, leaks.gone) == (1, 1)


def test_who_fell_due_again_and_left_before_the_next_reading_was_used_before_that() -> None:
    again = replace(LEAK, state_change=at(20), query_start=at(20))
    fell_due = PartialSnapshot(at(90), (again,))
    stream = recorded([look(0, LEAK), look(1, LEAK), look(100)], every=100 * STEP, partial=[fell_due])
    backtest = Backtest("orders", Rules(policies=(policy(),)), RHYTHM)
    for reading in stream:
        backtest.read(reading)
    regret = backtest.hindsight.regret("leaked")
    assert (backtest.counts.terminations["leaked"], regret.revived, regret.left) == (2, 1, 1)


def test_the_peak_is_told_as_it_was_and_as_it_would_have_been() -> None:
    found = backtested(
        policy(), stream=[*STREAM[:3], look(3, LEAK, BACK, LEFT, YOUNG, session(11, idle="1s"))]
    ).counts
    assert found.peak is not None
    assert found.peak_would is not None
    assert (found.peak.used, found.peak.would, found.peak.at) == (5, 2, at(3))
    assert (found.peak_would.would, found.peak_would.at) == (4, at(0))


def test_applications_have_peaks_of_their_own() -> None:
    found = backtested(policy(), stream=STREAM).counts.applications
    counts = {name: (one.terminated, one.peak) for name, one in found.items()}
    assert counts == {
        "leak": (2, 2),
        "pool": (1, 2),
    }
    assert found["leak"].gone == 1
    assert found["pool"].gone == 0


def test_however_many_names_there_are_so_many_are_counted() -> None:
    crowd = [session(pid, application=f"job-{pid}") for pid in range(1, MAX_APPLICATIONS + 50)]
    found = backtested(replace(policy(), brake=None), stream=[look(0, *crowd), look(1, *crowd)]).counts
    assert len(found.applications) == MAX_APPLICATIONS + 1
    assert found.applications[OTHERS].peak == 49


def test_a_course_has_so_many_steps_however_long_it_is() -> None:
    timeline = Timeline()
    for number in range(20 * MAX_BUCKETS):
        timeline.bucket(at(number)).merge(Bucket(number % 7, number % 5, Counter(leaked=1)))
    assert len(timeline.buckets) <= MAX_BUCKETS
    assert sum(step.terminations["leaked"] for step in timeline.buckets.values()) == 20 * MAX_BUCKETS
    assert max(step.used for step in timeline.buckets.values()) == 6
    assert timeline.moment(0) <= at(0) < timeline.moment(1)


def test_two_policy_files_are_told_apart_act_by_act() -> None:
    longer = policy(match=replace(IDLE_10M, idle_for=parse_span("40m")))
    named = Backtest("orders", Rules(policies=()), RHYTHM).label
    old, new = (Backtest("orders", Rules(policies=(each,)), RHYTHM) for each in (policy(), longer))
    versus = Comparison(named)
    for reading in recorded(STREAM):
        versus.read(reading, old.read(reading), new.read(reading))
    versus.end()
    assert versus.counts == {"both": 2, "old": 1}
    assert versus.applications["leak"] == {"both": 1, "old": 1}
