"""A jump of the server's clock against this host's clock is noticed; time that passes alike is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.time import SECOND
from reaper.service.clock import ClockWatch
from tests.unit.policy.build import NOW, later

from .build import Clock


class Clocks:
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


def test_the_first_snapshot_has_nothing_to_compare_with() -> None:
    watch = ClockWatch(Clock())
    assert watch.seconds_since_snapshot == 0
    assert watch.step(NOW) is None
    assert watch.counted_from is None


@given(st.lists(st.floats(0, 100_000), max_size=10), st.floats(-1, 1))
def test_clocks_that_run_alike_or_a_little_apart_do_not_jump(passed: list[float], share: float) -> None:
    clocks = Clocks()
    for seconds in passed:
        apart = share * min(1.99 + 0.0099 * seconds, 29)
        assert clocks.passes(here=seconds, there=max(seconds + apart, 0)) is None
    assert clocks.watch.counted_from is None


# A sleep of this host that its clock does not count looks like a jump of the server's clock, and so does
# another server behind the same name.
@pytest.mark.parametrize("jump", [7_200, -7_200, 2.2, -2.2, 86_400 * 365])
def test_a_jump_is_returned_with_its_size_and_ages_count_from_the_last_one(jump: float) -> None:
    clocks = Clocks()
    assert clocks.passes(here=10, there=10 + jump) == round(jump * SECOND)
    jumped_at = clocks.there
    assert clocks.passes(here=10, there=10) is None
    assert clocks.watch.counted_from == jumped_at
    assert clocks.passes(here=10, there=10 - jump) == round(-jump * SECOND)
    assert clocks.watch.counted_from == clocks.there


def test_an_answer_that_takes_long_is_no_jump() -> None:
    clocks = Clocks()
    clocks.here.passes(10)
    clocks.watch.begin()
    dated = later(NOW, by=10 * SECOND)
    clocks.here.passes(8)
    assert clocks.watch.step(dated) is None
    clocks.here.passes(10)
    clocks.watch.begin()
    assert clocks.watch.step(later(dated, by=18 * SECOND)) is None


def test_the_seconds_since_the_last_snapshot_are_of_this_hosts_clock() -> None:
    clocks = Clocks()
    clocks.passes(here=5, there=5)
    clocks.here.passes(1.5)
    assert clocks.watch.seconds_since_snapshot == 1.5
