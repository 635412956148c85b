"""What a backtest counts: terminations, their outcomes, slots and applications."""

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
from reaper.policy.time import SECOND, Duration, Timestamp, parse_duration
from tests.unit.policy.build import IDLE_10M, NOW, later, policy, session, snapshot

from .readings import recorded

RHYTHM: Final = Rhythm(Duration(10 * SECOND), Duration(SECOND // 4))
STEP: Final = 10 * SECOND


def at(steps: float) -> Timestamp:
    return later(NOW, by=round(steps * STEP))


def seen(number: int, *sessions: Session) -> Snapshot:
    return snapshot(*sessions, at=at(number), used=len(sessions))


def backtested(*policies: Policy, stream: Sequence[Snapshot]) -> Backtest:
    backtest = Backtest("orders", Rules(policies=policies), RHYTHM)
    for each in recorded(stream):
        backtest.read(each)
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
    *(seen(number, LEAK, BACK, LEFT, YOUNG) for number in range(3)),
    seen(3, LEAK, USED, LEFT, YOUNG),
    *(seen(number, LEAK, USED, YOUNG) for number in range(4, 50)),
]


def test_each_terminated_session_has_an_outcome() -> None:
    found = backtested(policy(), stream=STREAM)
    regret = found.hindsight.total()
    assert (regret.used_again, regret.left, regret.unused, regret.too_soon) == (1, 1, 0, 1)
    assert found.terminations == {"leaked": 3}
    assert found.hindsight.regret("leaked") == regret
    assert found.hindsight.regret_of_application("pool").used_again == 1
    assert found.hindsight.regret_of_application("leak").left == 1


def test_a_session_that_stays_unused_over_a_gap_is_terminated_once() -> None:
    found = backtested(policy(), stream=[seen(number, LEAK) for number in (0, 1, 360, 361, 362)])
    assert found.gaps == 1
    assert found.terminations == {"leaked": 1}
    assert sum(bucket.terminations["leaked"] for bucket in found.timeline.buckets.values()) == 1
    assert found.hindsight.total().total == 1
    assert (found.applications["leak"].terminated, found.applications["leak"].gone) == (1, 1)


def test_a_session_that_a_partial_snapshot_shows_due_again_was_used_before() -> None:
    again = replace(LEAK, state_change=at(20), query_start=at(20))
    stream = recorded(
        [seen(0, LEAK), seen(1, LEAK), seen(100)],
        every=100 * STEP,
        partial=[PartialSnapshot(at(90), (again,))],
    )
    backtest = Backtest("orders", Rules(policies=(policy(),)), RHYTHM)
    for each in stream:
        backtest.read(each)
    regret = backtest.hindsight.total()
    assert (backtest.terminations["leaked"], regret.used_again, regret.left) == (2, 1, 1)


def test_there_is_a_peak_as_it_was_and_one_as_it_would_have_been() -> None:
    found = backtested(
        policy(), stream=[*STREAM[:3], seen(3, LEAK, BACK, LEFT, YOUNG, session(11, idle="1s"))]
    )
    assert found.peak == (at(3), 5, 2)
    assert found.peak_would is not None
    assert (found.peak_would.would, found.peak_would.at) == (4, at(0))


def test_each_application_has_a_peak() -> None:
    found = backtested(policy(), stream=STREAM).applications
    counts = {name: (one.terminated, one.peak, one.gone) for name, one in found.items()}
    assert counts == {"leak": (2, 2, 1), "pool": (1, 2, 0)}


def test_the_number_of_applications_is_limited() -> None:
    crowd = [session(pid, application=f"job-{pid}") for pid in range(1, MAX_APPLICATIONS + 50)]
    found = backtested(
        replace(policy(), safety_limit=None), stream=[seen(0, *crowd), seen(1, *crowd)]
    ).applications
    assert len(found) == MAX_APPLICATIONS + 1
    assert found[OTHERS].peak == 49


def test_the_number_of_buckets_is_limited() -> None:
    timeline = Timeline()
    for number in range(20 * MAX_BUCKETS):
        timeline.bucket(at(number)).merge(Bucket(number % 7, number % 5, Counter(leaked=1)))
    assert len(timeline.buckets) <= MAX_BUCKETS
    assert sum(bucket.terminations["leaked"] for bucket in timeline.buckets.values()) == 20 * MAX_BUCKETS
    assert max(bucket.used for bucket in timeline.buckets.values()) == 6
    assert timeline.moment(0) <= at(0) < timeline.moment(1)


def test_a_comparison_counts_each_termination_by_its_sides() -> None:
    longer = policy(match=replace(IDLE_10M, idle_for=parse_duration("40m")))
    old, new = (Backtest("orders", Rules(policies=(each,)), RHYTHM) for each in (policy(), longer))
    comparison = Comparison(old.label)
    for each in recorded(STREAM):
        comparison.read(each, old.read(each), new.read(each))
    comparison.end()
    assert comparison.counts == {"both": 2, "old": 1}
    assert comparison.applications["leak"] == {"both": 1, "old": 1}
