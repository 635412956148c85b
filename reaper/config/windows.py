"""Stretches of the week: `Mon-Fri 20:00-06:00 Europe/Berlin`."""

import re
from collections.abc import Iterator
from datetime import UTC, tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from reaper.config.fields import text
from reaper.config.mistakes import quoted
from reaper.config.wording import guess, refuse, shown
from reaper.policy.rules import Window

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_RANGE: Final = f"{_DAY}(?:-{_DAY})?"
_PATTERN: Final = (
    rf"(?:(?P<days>{_RANGE}(?:,{_RANGE})*) )?"
    r"(?P<start>(?:[01][0-9]|2[0-3]):[0-5][0-9])-(?P<end>(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
    r"(?: (?P<zone>[A-Za-z][A-Za-z0-9_+/-]{0,62}))?"
)
_ONLY_DAYS: Final = re.compile(f"{_RANGE}(?:,{_RANGE})*")
"""Also what a comma leaves of a window in a list without quotes."""

_WINDOW: Final = re.compile(_PATTERN)
EDITOR_PATTERN: Final = f"^{re.sub(r'[?]P<[a-z]+>', '', _PATTERN)}$"
"""The same for editors, whose regular expressions name no groups in this way."""

_LONGEST: Final = 500

_FOR_EXAMPLE: Final = (
    "write for example Mon-Fri 20:00-06:00 Europe/Berlin, or 22:00-24:00 for every day in UTC"
)


def window(value: object) -> Window:
    """Days, hours and a time zone; every day and UTC when they are not said."""
    written = text(value)
    if len(written) > _LONGEST:
        refuse(f"{shown(written)} is longer than {_LONGEST} characters", "write several, in a list")
    found = _WINDOW.fullmatch(written)
    if _ONLY_DAYS.fullmatch(written):
        what = f"{shown(written)} names days and no hours"
        refuse(what, 'write for example "Sat,Sun 08:00-20:00", in quotes where it stands in a [list]')
    if not found:
        refuse(f"{shown(written)} is not a stretch of the week", _FOR_EXAMPLE)
    start, end = _minutes(found["start"]), _minutes(found["end"])
    if start == end:
        what = f"{shown(written)} ends when it begins"
        refuse(what, "write 00:00-24:00 for the whole day")
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
        meant = _meant(name)
        instead = f"did you mean {quoted(meant)}?" if meant else "write one such as Europe/Berlin or UTC"
        refuse(f"{shown(name)} is no time zone known here", instead)


def _meant(name: str) -> str | None:
    """The zone of the same part of the world whose name is nearest."""
    area = name.partition("/")[0].casefold()
    return guess(name, [zone for zone in _zones() if zone.casefold().startswith(area)], cutoff=0.8)


@cache
def _zones() -> frozenset[str]:
    """Every zone; asked of the file system once, for that takes its time."""
    return frozenset(available_timezones())
