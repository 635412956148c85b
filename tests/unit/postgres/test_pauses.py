"""How long to wait before it is looked again whether somebody has gone."""

from hypothesis import given
from hypothesis import strategies as st

from reaper.postgres.terminator import next_pause

MILLISECOND = 0.001


def test_the_rest_is_given_as_long_as_it_needs_at_the_pace_so_far() -> None:
    assert next_pause(10 * MILLISECOND, gone=20, left=60) == 30 * MILLISECOND


def test_where_nobody_has_gone_the_pauses_grow() -> None:
    assert next_pause(4 * MILLISECOND, gone=0, left=3) == 8 * MILLISECOND


@given(last=st.floats(MILLISECOND, 0.1), gone=st.integers(0, 10_000), left=st.integers(0, 10_000))
def test_no_pause_is_so_short_that_it_spins_or_so_long_that_the_end_is_missed(
    last: float, gone: int, left: int
) -> None:
    assert MILLISECOND <= next_pause(last, gone=gone, left=left) <= 100 * MILLISECOND
