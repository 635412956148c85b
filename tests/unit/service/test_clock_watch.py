"""Time that does not pass on the server as it does here is noticed; time that does is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.time import SECOND, Timestamp
from reaper.service.clock import ClockWatch
from tests.unit.policy.build import NOW, later

from .build import Clock

_HOURS_2 = 7_200 * SECOND


class Watched:
    """A server's clock and this host's."""

    def __init__(self) -> None:
        self.here = Clock()
        self.watch = ClockWatch(self.here)
        self.there = NOW
        self.watch.step(self.there)

    def passes(self, *, here: float, there: float) -> int | None:
        self.here.passes(here)
        self.there = later(self.there, by=round(there * SECOND))
        return self.watch.step(self.there)


def test_the_first_look_has_nothing_to_compare_with() -> None:
    watch = ClockWatch(Clock())
    assert watch.seconds_since_snapshot == 0
    assert watch.step(NOW) is None
    assert watch.counted_from is None


@given(st.lists(st.floats(0, 100_000), max_size=10))
def test_time_that_passes_alike_is_no_step(passed: list[float]) -> None:
    watched = Watched()
    assert [watched.passes(here=span, there=span) for span in passed] == [None] * len(passed)
    assert watched.watch.counted_from is None


@given(st.floats(0, 100_000), st.floats(-1, 1))
def test_clocks_that_run_a_little_apart_are_no_step(passed: float, share: float) -> None:
    apart = share * min(1.99 + 0.0099 * passed, 29)
    assert Watched().passes(here=passed, there=passed + apart) is None


@pytest.mark.parametrize("stepped", [7_200, -7_200, 2.2, -2.2, 86_400 * 365])
def test_a_step_of_the_server_is_told_with_its_size_and_ages_count_from_there(stepped: float) -> None:
    watched = Watched()
    assert watched.passes(here=10, there=10 + stepped) == round(stepped * SECOND)
    assert watched.watch.counted_from == watched.there


def test_an_answer_that_takes_long_is_no_step() -> None:
    watched = Watched()
    watched.here.passes(10)
    watched.watch.begin()
    dated = later(NOW, by=10 * SECOND)
    watched.here.passes(8)
    assert watched.watch.step(dated) is None
    watched.here.passes(10)
    watched.watch.begin()
    assert watched.watch.step(later(dated, by=18 * SECOND)) is None


def test_a_sleep_of_this_host_which_its_clock_does_not_count_shows_as_a_step() -> None:
    assert Watched().passes(here=10, there=3_600) == 3_590 * SECOND


def test_a_pause_that_both_clocks_count_is_none() -> None:
    assert Watched().passes(here=86_400, there=86_400) is None


def test_after_a_step_time_goes_on_from_there_and_ages_still_count_from_it() -> None:
    watched = Watched()
    watched.passes(here=10, there=10 + 7_200)
    stepped_at = watched.there
    assert watched.passes(here=10, there=10) is None
    assert watched.watch.counted_from == stepped_at


def test_the_last_of_several_steps_is_what_ages_count_from() -> None:
    watched = Watched()
    assert watched.passes(here=10, there=10 + 7_200) == _HOURS_2
    assert watched.passes(here=10, there=10 - 7_200) == -_HOURS_2
    assert watched.watch.counted_from == watched.there


def test_the_seconds_since_the_last_look_are_this_hosts() -> None:
    watched = Watched()
    watched.passes(here=5, there=5)
    watched.here.passes(1.5)
    assert watched.watch.seconds_since_snapshot == 1.5


def test_another_server_behind_the_same_name_shows_by_its_clock() -> None:
    watched = Watched()
    watched.there = Timestamp(watched.there - _HOURS_2)
    assert watched.passes(here=1, there=1) == -_HOURS_2
