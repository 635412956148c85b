"""Timestamps and durations in microseconds, and their text.

PostgreSQL counts in whole microseconds, so an integer is exact: two timestamps show the same state of a
session if and only if they are equal.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NewType

Timestamp = NewType("Timestamp", int)
"""Microseconds since 1970-01-01 UTC, by the server's clock."""

Duration = NewType("Duration", int)
"""A length of time in microseconds."""

SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {"d": 86_400 * SECOND, "h": 3_600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000}
_NAMES: Final = ("days?|d", "hours?|h", "minutes?|min|m", "seconds?|sec|s", "ms")
DURATION_PATTERN: Final = "(?=[0-9])" + "".join(f"(?: ?([0-9]{{1,9}}) ?(?:{names}))?" for names in _NAMES)
_DURATION: Final = re.compile(DURATION_PATTERN)


def parse_duration(text: str) -> Duration:
    """Read `90s`, `10m`, `1h30m`, `2d`, `10 minutes`; anything else is a ValueError."""
    found = _DURATION.fullmatch(text)
    if not found:
        message = f"{text!r} is not a duration"
        raise ValueError(message)
    return Duration(
        sum(int(count) * unit for count, unit in zip(found.groups("0"), _UNITS.values(), strict=True))
    )


def seconds(duration: Duration) -> float:
    """The duration as a number of seconds."""
    return duration / SECOND


def since(then: Timestamp | None, now: Timestamp) -> Duration | None:
    """The time since then; None if that is not known."""
    return None if then is None else Duration(now - then)


def words(duration: Duration) -> str:
    """The duration for a person: `450ms`, `31s`, `12m31s`, `2d3h`."""
    if duration < 0:
        return "-" + words(Duration(-duration))
    if duration < SECOND:
        return f"{duration // 1_000}ms"
    parts: list[str] = []
    rest: int = duration
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _UNITS[unit])
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2])


def exact_words(duration: Duration) -> str:
    """The duration without rounding, as `parse_duration` reads it."""
    parts: list[str] = []
    rest: int = duration
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def as_datetime(timestamp: Timestamp) -> datetime:
    """The same timestamp as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=timestamp)


def from_datetime(moment: datetime) -> Timestamp:
    """The same timestamp as the server counts it."""
    return Timestamp((moment - _EPOCH) // timedelta(microseconds=1))


def isoformat(timestamp: Timestamp | None) -> str | None:
    """The timestamp in ISO 8601, UTC, with its microseconds; one outside the calendar as it stands."""
    if timestamp is None:
        return None
    second, rest = divmod(timestamp, SECOND)
    try:
        return f"{_second(second)}.{rest:06d}Z"
    except OverflowError:
        return f"{timestamp}us"


@lru_cache(maxsize=1_024)
def _second(number: int) -> str:
    """A second of the calendar; the instants of one cycle lie in few of them."""
    return (_EPOCH + timedelta(seconds=number)).isoformat().removesuffix("+00:00")


def parse_time(text: object) -> datetime | None:
    """A moment in ISO 8601, or nothing; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        return time and (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
