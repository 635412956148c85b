"""A count over the last minutes."""

from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.usage.trend import _HOLDS, BEAT_SECONDS, BEATS, Trend
from tests.unit.policy.hostile import PROPERTY

notes = st.lists(
    st.tuples(st.integers(min_value=0, max_value=200), st.integers(min_value=0, max_value=500)), max_size=40
)


def naive(noted: list[tuple[int, int]], current: int) -> list[int | None]:
    """The same, without any thrift."""
    highest = dict[int, int]()
    for beat, count in noted:
        highest[beat] = max(highest.get(beat, 0), count)
    values = []
    for beat in range(current - BEATS + 1, current + 1):
        last = max((known for known in highest if current - BEATS < known <= beat), default=None)
        values.append(None if last is None or beat - last > _HOLDS else highest[last])
    return values


@given(notes, st.integers(min_value=0, max_value=90))
@PROPERTY
def test_it_shows_the_highest_count_of_each_beat_and_holds_it_for_a_while(
    noted: list[tuple[int, int]], later: int
) -> None:
    noted = sorted(noted)
    trend = Trend()
    for beat, count in noted:
        trend.note(beat * BEAT_SECONDS, count)
    current = max((beat for beat, _ in noted), default=0) + later

    assert list(trend.values(current * BEAT_SECONDS)) == naive(noted, current)


def test_a_count_holds_for_a_minute_and_no_longer() -> None:
    trend = Trend()
    trend.note(0, 5)

    assert [trend.values(seconds)[-1] for seconds in (9, 60, 69, 70)] == [5, 5, 5, None]


def test_what_is_noted_too_late_changes_nothing_that_is_newer() -> None:
    trend = Trend()
    trend.note(BEATS * BEAT_SECONDS, 5)
    trend.note(0, 99)

    assert trend.values(BEATS * BEAT_SECONDS) == (*[None] * (BEATS - 1), 5)


def test_no_count_is_too_large() -> None:
    trend = Trend()
    trend.note(0, 10**12)

    assert trend.values(0)[-1] == 2**31 - 1
