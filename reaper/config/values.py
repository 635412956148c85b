"""Readers of single values: from what is written in the file to its meaning, or BadValue."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, tzinfo
from functools import cache
from typing import Final, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from reaper.config.errors import closest, did_you_mean, quoted, refuse
from reaper.config.yaml_tree import NOTHING, PlainScalar
from reaper.policy import time
from reaper.policy.protections import OVERRIDABLE, SELF
from reaper.policy.rules import Window
from reaper.policy.time import Duration, parse_duration

DURATION_PATTERN: Final = f"^{time.DURATION_PATTERN}$"
SHARE_PATTERN: Final = r"^(?!0+(\.0+)?%)(0?[0-9]{1,2}(\.[0-9]{1,6})?|100(\.0{1,6})?)%$"
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_LONGEST_SHOWN: Final = 64
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_WORD: Final = re.compile(r"[\w ()-]{1,40}")
_DAY: Final = f"(?:{'|'.join(DAYS)})"
_RANGE: Final = f"{_DAY}(?:-{_DAY})?"
_WINDOW: Final = (
    rf"(?:(?P<days>{_RANGE}(?:,{_RANGE}){{0,20}}) )?"
    r"(?P<start>(?:[01][0-9]|2[0-3]):[0-5][0-9])-(?P<end>(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
    r"(?: (?P<zone>[A-Za-z][A-Za-z0-9_+/-]{0,62}))?"
)
WINDOW_PATTERN: Final = f"^{re.sub('[?]P<[a-z]+>', '', _WINDOW)}$"
"""For editors, whose regular expressions do not know named groups of this form."""


def shown(value: object) -> str:
    """A value of the file as a message shows it."""
    match value:
        case PlainScalar(text=text, kind=kind):
            if kind == NOTHING:
                return NOTHING
            # Only letters, digits and a few signs can look like a number, a date or a boolean.
            return text if len(text) <= _LONGEST_SHOWN and text.isprintable() else quoted(text)
        case str():
            return quoted(value)
        case dict():
            return "a map"
        case list():
            return "a list"
    return type(value).__name__


def text(value: object) -> str:
    """A text; what YAML reads as something else needs quotes."""
    return value if isinstance(value, str) else _no_text(value)


def _no_text(value: object) -> NoReturn:
    if not isinstance(value, PlainScalar):
        refuse(f"expected one text, got {shown(value)}", "write a text")
    if value.kind == NOTHING:
        refuse("the value is empty", "write a value, or leave it out")
    refuse(f"{shown(value)} is {value.kind} to YAML", f'write "{shown(value)}", in quotes')


def duration(least: str, most: str) -> Callable[[object], Duration]:
    """A reader of durations between these two."""
    low, high = parse_duration(least), parse_duration(most)

    def read(value: object) -> Duration:
        try:
            span = parse_duration(value if isinstance(value, str) else "")
        except ValueError:
            _no_duration(value)
        if span < low:
            refuse(f"{shown(value)} is too short", f"write {least} or more")
        if span > high:
            refuse(f"{shown(value)} is too long", f"write {most} or less")
        return span

    return read


def _no_duration(value: object) -> NoReturn:
    number = value.text if isinstance(value, PlainScalar) else ""
    if _WHOLE.fullmatch(number) and number != "0":
        refuse(f"{number} has no unit", f"write {number}s, {number}m or {number}h")
    refuse(f"{shown(value)} is not a duration", "write for example 90s, 10m, 1h30m or 2d")


def share(value: object) -> float:
    """A percentage above 0% and up to 100%, as a fraction."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if not found:
        refuse(f"{shown(value)} is not a percentage", "write for example 80%")
    fraction = float(found[1]) / 100
    if not 0 < fraction <= 1:
        refuse(f"{shown(value)} is out of range", "write more than 0% and at most 100%")
    return fraction


def whole(least: int) -> Callable[[object], int]:
    """A reader of whole numbers that are not smaller than this."""

    def read(value: object) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            refuse(f"{shown(value)} is a text because of its quotes", f"write {value}")
        if not isinstance(value, PlainScalar) or not _WHOLE.fullmatch(value.text.removeprefix("-")):
            refuse(f"{shown(value)} is not a whole number up to 999999999", "write one such as 10")
        number = int(value.text)
        if number < least:
            refuse(f"{value.text} is too small", f"write {least} or more")
        return number

    return read


def truth(value: object) -> bool:
    """True or false, and none of YAML's other words for them."""
    if not isinstance(value, PlainScalar) or value.text not in ("true", "false"):
        refuse(f"{shown(value)} is neither true nor false", "write true, or leave the key out")
    return value.text == "true"


def choice(known: Iterable[str]) -> Callable[[object], str]:
    """A reader of one of these words."""
    words = tuple(known)

    def read(value: object) -> str:
        written = value.text if isinstance(value, PlainScalar) else value
        if not isinstance(written, str) or written not in words:
            # A text with other characters may be the URL of a webhook at the wrong key.
            what = "this" if isinstance(written, str) and not _WORD.fullmatch(written) else shown(value)
            refuse(f"{what} is not a known value", did_you_mean(str(written), words))
        return written

    return read


def version(value: object) -> int:
    """The version of the schema, of which there is one."""
    if not isinstance(value, PlainScalar) or value.text != "1":
        refuse(f"{shown(value)} is not a known version", "write 1")
    return 1


_protection = choice(OVERRIDABLE)


def protection(value: object) -> str:
    """A built-in protection that a policy may override."""
    if value == SELF:
        refuse(f"the protection {SELF!r} cannot be overridden", "delete it")
    return _protection(value)


def name(pattern: str, rule: str) -> Callable[[object], str]:
    """A reader of names of this form, at most 63 characters long."""
    form = re.compile(pattern)

    def read(value: object) -> str:
        written = text(value)
        if not form.fullmatch(written):
            refuse(f"{shown(value)} is not a valid name", rule)
        return written

    return read


def window(value: object) -> Window:
    """Days, hours and a time zone: `Mon-Fri 20:00-06:00 Europe/Berlin`; by default every day, in UTC."""
    written = text(value)
    # Also what a comma leaves of a window that stands in a list without quotes.
    if re.fullmatch(f"{_RANGE}(?:,{_RANGE})*", written):
        instead = 'write for example "Sat,Sun 08:00-20:00", in quotes where it stands in a [list]'
        refuse(f"{shown(written)} has days and no hours", instead)
    found = re.fullmatch(_WINDOW, written)
    if not found:
        instead = "write for example Mon-Fri 20:00-06:00 Europe/Berlin, or 22:00-24:00 for every day in UTC"
        refuse(f"{shown(written)} is not a time window", instead)
    start, end = _minutes(found["start"]), _minutes(found["end"])
    if start == end:
        refuse(f"{shown(written)} ends when it begins", "write 00:00-24:00 for the whole day")
    days = frozenset(_days(found["days"] or "Mon-Sun"))
    return Window(days=days, start=start, end=end, zone=_zone(found["zone"]), text=written)


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _days(written: str) -> Iterator[int]:
    for part in written.split(","):
        first, _, last = part.partition("-")
        start, end = DAYS.index(first), DAYS.index(last or first)
        yield from (day % 7 for day in range(start, end + 1 if end >= start else end + 8))


def _zone(name: str | None) -> tzinfo:
    if name in (None, "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        similar = closest(name, _zones(), cutoff=0.8)
        instead = f"did you mean {quoted(similar)}?" if similar else "write one such as Europe/Berlin or UTC"
        refuse(f"{shown(name)} is not a known time zone", instead)


@cache
def _zones() -> frozenset[str]:
    """Every time zone; cached, because finding them reads the file system."""
    return frozenset(available_timezones())
