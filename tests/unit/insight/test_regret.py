"""The regret of a policy: its rate, its bound, and a limit with less regret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.insight.dryrun.regret import FEW, DryRun, Freed, Regret, freed, limit_under, upper_bound
from reaper.policy.time import SECOND, Duration, Timestamp, parse_duration
from tests.unit.policy.build import NOW
from tests.unit.policy.hostile import PROPERTY

from .dry_runs import dry_run, dry_runs

UNUSED, LEFT, USED_AGAIN, UNKNOWN = (
    DryRunOutcome.UNUSED,
    DryRunOutcome.LEFT,
    DryRunOutcome.USED_AGAIN,
    DryRunOutcome.UNKNOWN,
)


def test_the_rate_counts_only_known_outcomes() -> None:
    seen = [*dry_runs(6, UNUSED), *dry_runs(2, LEFT), *dry_runs(2, USED_AGAIN), *dry_runs(5, UNKNOWN)]
    regret = Regret.of(seen)
    assert (regret.total, regret.decided, regret.rate, regret.at_most) == (15, 10, 0.2, 0.4)


def test_without_known_outcomes_there_is_no_rate_and_the_bound_is_one() -> None:
    regret = Regret.of(dry_runs(3, UNKNOWN))
    assert (regret.decided, regret.rate, regret.at_most, regret.upper) == (0, None, None, 1.0)


@pytest.mark.parametrize("outcome", [UNUSED, None])
def test_unused_counts_only_after_the_idle_time(
    outcome: DryRunOutcome | None,
) -> None:
    assert Regret.of([dry_run(outcome, idle="10m", after="9m59s")]) == Regret(too_soon=1)
    assert Regret.of([dry_run(outcome, idle="10m", after="10m")]) == Regret(unused=1)


@pytest.mark.parametrize("outcome", [LEFT, USED_AGAIN])
def test_left_and_used_again_count_at_once(outcome: DryRunOutcome) -> None:
    assert Regret.of([dry_run(outcome, after="1s")]).decided == 1


@pytest.mark.parametrize(
    ("hits", "of", "upper"),
    [(0, 12, 0.2425), (0, 35, 0.0989), (0, 381, 0.00998), (3, 100, 0.0845), (5, 5, 1.0)],
)
def test_few_observations_have_a_high_bound(hits: int, of: int, upper: float) -> None:
    assert upper_bound(hits, of) == pytest.approx(upper, abs=5e-5)


@PROPERTY
@given(st.integers(0, 500), st.integers(0, 500))
def test_the_bound_is_a_share_not_below_the_rate(hits: int, more: int) -> None:
    of = hits + more
    assert (hits / of if of else 0) <= upper_bound(hits, of) <= 1


def test_the_limit_is_the_shortest_above_the_sessions_used_again() -> None:
    seen = [*dry_runs(3, USED_AGAIN, after="14m10s"), *dry_runs(40, UNUSED, after="2h")]
    limit = limit_under(seen)
    assert limit
    assert (limit.span, limit.used_again, limit.decided) == (parse_duration("25m"), 0, 40)


def test_a_limit_counts_only_sessions_that_would_have_reached_it() -> None:
    seen = [
        *dry_runs(1, USED_AGAIN, after="14m10s"),
        *dry_runs(40, UNUSED, after="12m"),
        *dry_runs(2, LEFT, after="3h"),
    ]
    limit = limit_under(seen)
    assert limit
    assert (limit.span, limit.decided) == (parse_duration("25m"), 2)


def test_the_limit_may_match_less_than_one_percent_used_again() -> None:
    seen = [
        *dry_runs(9, USED_AGAIN, after="5m"),
        dry_run(USED_AGAIN, after="5h"),
        *dry_runs(150, UNUSED, after="6h"),
    ]
    limit = limit_under(seen)
    assert limit
    assert (limit.span, limit.used_again, limit.decided) == (parse_duration("16m"), 1, 151)


def test_there_is_no_limit_if_the_longest_idle_session_was_used_again() -> None:
    assert limit_under([*dry_runs(10, UNUSED, after="1h"), dry_run(USED_AGAIN, after="2h")]) is None
    assert limit_under(dry_runs(10, UNUSED)) is None


spans = st.integers(0, 7_200 * SECOND).map(Duration)
some = st.builds(
    lambda outcome, idle, after: dry_run(outcome)._replace(idle=idle, after=after),
    st.sampled_from([*DryRunOutcome, None]),
    spans,
    spans,
)


@PROPERTY
@given(st.lists(some, max_size=60))
def test_at_the_limit_less_than_one_in_a_hundred_would_have_been_regretted(seen: list[DryRun]) -> None:
    limit = limit_under(seen)
    if limit is None:
        return
    met = [one for one in seen if one.counts_as in {UNUSED, LEFT, USED_AGAIN} and one.lasted >= limit.span]
    hit = [one for one in met if one.outcome is USED_AGAIN]
    assert (limit.used_again, limit.decided) == (len(hit), len(met))
    assert len(hit) / len(met) < FEW


def test_freed_slots_are_the_most_at_one_time_and_the_hours() -> None:
    first, second = dry_run(UNUSED, after="30m"), dry_run(LEFT, after="30m")
    third = first._replace(at=Timestamp(NOW + parse_duration("30m")))
    assert freed([first, second, third, dry_run(UNKNOWN, after="9h")]) == Freed(slots=2, hours=1.5)
