"""Instants and spans of time, in microseconds, and the words for them.

PostgreSQL counts in whole microseconds, so an integer repeats what it said exactly: two instants are the same
state of a session if and only if they are equal.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NewType

Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01 UTC, by the server's clock."""

Span = NewType("Span", int)
"""A length of time in microseconds."""

SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {"d": 86_400 * SECOND, "h": 3_600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000}
_NAMES: Final = ("days?|d", "hours?|h", "minutes?|min|m", "seconds?|sec|s", "ms")
DURATION_PATTERN: Final = "(?=[0-9])" + "".join(f"(?: ?([0-9]{{1,9}}) ?(?:{names}))?" for names in _NAMES)
_DURATION: Final = re.compile(DURATION_PATTERN)


def parse_span(text: str) -> Span:
    """Read `90s`, `10m`, `1h30m`, `2d`, `10 minutes`; anything else is a ValueError."""
    found = _DURATION.fullmatch(text)
    if not found:
        message = f"{text!r} is not a duration"
        raise ValueError(message)
    return Span(
        sum(int(count) * unit for count, unit in zip(found.groups("0"), _UNITS.values(), strict=True))
    )


def seconds(span: Span) -> float:
    """The span as a number of seconds."""
    return span / SECOND


def since(then: Instant | None, now: Instant) -> Span | None:
    """How long ago that was; nothing when it is not known."""
    return None if then is None else Span(now - then)


def words(span: Span) -> str:
    """Say a span as a person would: `450ms`, `31s`, `12m31s`, `2d3h`."""
    if span < 0:
        return "-" + words(Span(-span))
    if span < SECOND:
        return f"{span // 1_000}ms"
    parts: list[str] = []
    rest: int = span
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _UNITS[unit])
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2])


def exact_words(span: Span) -> str:
    """Say a limit without rounding, in the spelling that `parse_span` reads back."""
    parts: list[str] = []
    rest: int = span
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def as_datetime(instant: Instant) -> datetime:
    """The same instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


def from_datetime(moment: datetime) -> Instant:
    """The same instant as the server counts it."""
    return Instant((moment - _EPOCH) // timedelta(microseconds=1))


def isoformat(instant: Instant | None) -> str | None:
    """The instant in ISO 8601, UTC, with its microseconds; one outside the calendar as it stands."""
    if instant is None:
        return None
    second, rest = divmod(instant, SECOND)
    try:
        return f"{_second(second)}.{rest:06d}Z"
    except OverflowError:
        return f"{instant}us"


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
