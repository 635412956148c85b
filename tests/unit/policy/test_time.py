"""Durations and timestamps: parsed and shown."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.time import (
    Duration,
    Timestamp,
    as_datetime,
    exact_words,
    from_datetime,
    isoformat,
    parse_duration,
    seconds,
    since,
    words,
)

from .build import NOW

MILLISECONDS = st.integers(min_value=0, max_value=10**12).map(lambda count: Duration(count * 1_000))


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("90s", 90_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("5ms", 5),
        ("1m5ms", 60_005),
        ("1d2h3m4s5ms", 93_784_005),
        ("0s", 0),
        ("007s", 7_000),
    ],
)
def test_a_duration_is_read_as_written(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds * 1_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10",
        "10  m",
        "m",
        "-5m",
        "1.5h",
        "30m1h",
        "5m5m",
        "10M",
        "1w",
        "10m\n",
        "٣m",
        "1000000000s",
        "1:30",
    ],
)
def test_other_texts_are_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration") as refused:
        parse_duration(text)
    assert str(refused.value) == f"{text!r} is not a duration"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0s", "0ms"),
        ("450ms", "450ms"),
        ("999ms", "999ms"),
        ("1s", "1s"),
        ("1s999ms", "1s"),
        ("12m31s", "12m31s"),
        ("10m", "10m"),
        ("1h30m59s", "1h30m"),
        ("1h59s", "1h"),
        ("2d3h4m", "2d3h"),
        ("2d59m", "2d"),
        ("400d", "400d"),
    ],
)
def test_an_age_is_shown_in_its_two_largest_units(text: str, said: str) -> None:
    assert words(parse_duration(text)) == said


def test_a_negative_age_has_a_sign() -> None:
    assert words(Duration(-90_000_000)) == "-1m30s"


def test_less_than_a_millisecond_is_zero() -> None:
    assert words(Duration(999)) == "0ms"


@pytest.mark.parametrize("text", ["0s", "5ms", "10m", "1h30m", "2d", "1d1ms", "1d2h3m4s5ms"])
def test_a_limit_is_shown_as_it_was_written(text: str) -> None:
    assert exact_words(parse_duration(text)) == text


def test_a_limit_is_shown_in_the_largest_units_that_fit() -> None:
    assert exact_words(parse_duration("90s")) == "1m30s"


@given(MILLISECONDS)
def test_a_limit_in_words_is_read_back_exactly(span: Duration) -> None:
    assert parse_duration(exact_words(span)) == span


@given(MILLISECONDS.filter(bool))
def test_an_age_in_words_is_rounded_down_by_less_than_its_second_unit(
    span: Duration,
) -> None:
    said = parse_duration(words(span))
    assert said <= span < said + max(span // 23, parse_duration("1s"))


@given(st.integers(), st.integers())
def test_the_time_since_a_timestamp_is_exact(then: int, now: int) -> None:
    assert since(Timestamp(then), Timestamp(now)) == now - then


def test_the_time_since_an_unknown_timestamp_is_unknown() -> None:
    assert since(None, NOW) is None


def test_seconds_are_a_number() -> None:
    assert seconds(parse_duration("1m500ms")) == 60.5


@given(st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999))
def test_a_timestamp_survives_as_a_datetime_to_the_microsecond(count: int) -> None:
    assert from_datetime(as_datetime(Timestamp(count))) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (NOW, "2025-06-18T12:00:00.000000Z"),
        (NOW + 1, "2025-06-18T12:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (10**30, "1000000000000000000000000000000us"),
        (-(10**18), "-1000000000000000000us"),
    ],
)
def test_a_timestamp_is_shown_in_utc_with_its_microseconds(count: int, text: str) -> None:
    assert isoformat(Timestamp(count)) == text


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_timestamp_is_shown_as_datetime_shows_it(moment: datetime) -> None:
    assert isoformat(from_datetime(moment)) == moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def test_an_unknown_timestamp_is_none() -> None:
    assert isoformat(None) is None
