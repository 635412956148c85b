"""The regret of a policy: a share, how sure it is, and the limit at which it would be borne."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.dryrun.outcomes import Fate
from reaper.insight.dryrun.regret import FEW, Freed, Regret, Trial, freed, limit_under, upper_bound
from reaper.policy.time import SECOND, Duration, Timestamp, parse_duration
from tests.unit.policy.build import NOW
from tests.unit.policy.hostile import PROPERTY

from .trials import trial, trials

UNUSED, LEFT, REVIVED, UNKNOWN = Fate.UNUSED, Fate.LEFT, Fate.REVIVED, Fate.UNKNOWN


def test_the_rate_is_of_those_of_whom_it_is_known_what_became_of_them() -> None:
    seen = [*trials(6, UNUSED), *trials(2, LEFT), *trials(2, REVIVED), *trials(5, UNKNOWN)]
    regret = Regret.of(seen)
    assert (regret.acts, regret.decided, regret.rate, regret.at_most) == (15, 10, 0.2, 0.4)


def test_of_nobody_there_is_no_rate_and_anything_is_possible() -> None:
    regret = Regret.of(trials(3, UNKNOWN))
    assert (regret.decided, regret.rate, regret.at_most, regret.upper) == (0, None, None, 1.0)


@pytest.mark.parametrize("fate", [UNUSED, None])
def test_who_was_watched_for_a_shorter_time_than_it_had_been_idle_tells_nothing_yet(
    fate: Fate | None,
) -> None:
    assert Regret.of([trial(fate, idle="10m", after="9m59s")]) == Regret(too_soon=1)
    assert Regret.of([trial(fate, idle="10m", after="10m")]) == Regret(unused=1)


@pytest.mark.parametrize("fate", [LEFT, REVIVED])
def test_who_left_or_came_back_counts_at_once(fate: Fate) -> None:
    assert Regret.of([trial(fate, after="1s")]).decided == 1


@pytest.mark.parametrize(
    ("hits", "of", "upper"),
    [(0, 12, 0.2425), (0, 35, 0.0989), (0, 381, 0.00998), (3, 100, 0.0845), (5, 5, 1.0)],
)
def test_few_observations_leave_much_possible(hits: int, of: int, upper: float) -> None:
    assert upper_bound(hits, of) == pytest.approx(upper, abs=5e-5)


@PROPERTY
@given(st.integers(0, 500), st.integers(0, 500))
def test_the_bound_is_a_share_no_smaller_than_what_was_seen(hits: int, more: int) -> None:
    of = hits + more
    assert (hits / of if of else 0) <= upper_bound(hits, of) <= 1


def test_the_limit_is_the_shortest_that_spares_those_that_came_back() -> None:
    seen = [*trials(3, REVIVED, after="14m10s"), *trials(40, UNUSED, after="2h")]
    limit = limit_under(seen)
    assert limit
    assert (limit.span, limit.revived, limit.decided) == (parse_duration("25m"), 0, 40)


def test_a_limit_counts_only_those_who_would_have_reached_it() -> None:
    seen = [
        *trials(1, REVIVED, after="14m10s"),
        *trials(40, UNUSED, after="12m"),
        *trials(2, LEFT, after="3h"),
    ]
    limit = limit_under(seen)
    assert limit
    assert (limit.span, limit.decided) == (parse_duration("25m"), 2)


def test_one_that_came_back_among_many_may_be_borne_and_the_limit_need_not_spare_it() -> None:
    seen = [*trials(9, REVIVED, after="5m"), trial(REVIVED, after="5h"), *trials(150, UNUSED, after="6h")]
    limit = limit_under(seen)
    assert limit
    assert (limit.span, limit.revived, limit.decided) == (parse_duration("16m"), 1, 151)


def test_when_whoever_stayed_longest_came_back_no_limit_that_was_seen_would_do() -> None:
    assert limit_under([*trials(10, UNUSED, after="1h"), trial(REVIVED, after="2h")]) is None
    assert limit_under(trials(10, UNUSED)) is None


spans = st.integers(0, 7_200 * SECOND).map(Duration)
some = st.builds(
    lambda fate, idle, after: trial(fate)._replace(idle=idle, after=after),
    st.sampled_from([*Fate, None]),
    spans,
    spans,
)


@PROPERTY
@given(st.lists(some, max_size=60))
def test_at_the_limit_less_than_one_in_a_hundred_would_have_been_regretted(seen: list[Trial]) -> None:
    limit = limit_under(seen)
    if limit is None:
        return
    met = [one for one in seen if one.counts_as in {UNUSED, LEFT, REVIVED} and one.lasted >= limit.span]
    hit = [one for one in met if one.fate is REVIVED]
    assert (limit.revived, limit.decided) == (len(hit), len(met))
    assert len(hit) / len(met) < FEW


def test_slots_are_counted_at_their_most_at_one_time_and_in_hours() -> None:
    first, second = trial(UNUSED, after="30m"), trial(LEFT, after="30m")
    third = first._replace(at=Timestamp(NOW + parse_duration("30m")))
    assert freed([first, second, third, trial(UNKNOWN, after="9h")]) == Freed(slots=2, hours=1.5)
