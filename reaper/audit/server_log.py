"""Who was terminated by an administrator's command, as the server's own log tells it.

Compared by SQLSTATE where the format has it, for the text is in the server's language.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Final

from reaper.audit.reader import LONGEST_LINE, opened
from reaper.audit.verify import Place

COMMON: Final = (
    "%m [%p] ",
    "%m [%p] %q%u@%d ",
    "%m [%p] %q%a ",
    "%m [%p] %a ",
    "%m [%p] %e ",
    "%m [%p] %q[%e] ",
    "%t [%p] ",
    "%t [%p]: ",
    "%t [%p]: user=%u,db=%d,app=%a,client=%h ",
    "%t:%r:%u@%d:[%p]:",
    "%m %p ",
    "%m:%p:",
)
"""Tried in this order when nobody says which it is; the first is the server's default."""

_TIME: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? [A-Za-z0-9+:-]{1,10}"
# Bounded, for a client chooses what stands there: no name can make the search long.
_ANYTHING: Final = r".{0,80}?"
_ESCAPES: Final = {
    "%": "%",
    "p": r"(?P<pid>\d{1,10})",
    "t": f"(?P<time>{_TIME})",
    "m": f"(?P<time>{_TIME})",
    "n": r"(?P<epoch>\d{1,12}\.\d{1,6})",
    "s": f"(?P<started>{_TIME})",
    "c": r"(?P<session>[0-9a-f]{1,16}\.[0-9a-f]{1,8})",
    "e": r"(?P<state>[0-9A-Z]{5})",
    "l": r"\d+",
    "q": "",
}
_ESCAPE: Final = re.compile(r"%-?\d*([A-Za-z%])")
# In capitals, in every language that has them: a client's name before it may hold a colon too.
_MESSAGE: Final = r"(?P<severity>[^\s:a-z]{1,20}):\s+(?P<message>.*)"


class BadPrefix(ValueError):
    """A prefix that does not tell who and when."""


def compiled(prefix: str) -> re.Pattern[str]:
    """What fits a line with this prefix; raises BadPrefix when it does not tell the pid and the time."""
    parts, at = [], 0
    for escape in _ESCAPE.finditer(prefix):
        padding = r"\s*" if len(escape[0]) > len("%p") else ""
        inner = _ESCAPES.get(escape[1], _ANYTHING)
        parts += [re.escape(prefix[at : escape.start()]), padding, inner, padding]
        at = escape.end()
    parts += [re.escape(prefix[at:]), _MESSAGE]
    try:
        pattern = re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        message = f"the prefix {prefix!r} names the same thing twice"
        raise BadPrefix(message) from error
    if "pid" not in pattern.groupindex or not {"time", "epoch"} & pattern.groupindex.keys():
        message = f"the prefix {prefix!r} tells no pid (%p), or no time (%m, %t or %n)"
        raise BadPrefix(message)
    return pattern


def guessed(lines: Iterable[str]) -> re.Pattern[str] | None:
    """The common prefix that fits most of these lines, or nothing when none fits any."""
    lines = list(lines)
    fitting = [
        (sum(bool(pattern.match(line)) for line in lines), pattern) for pattern in map(compiled, COMMON)
    ]
    most, best = max(fitting, key=lambda each: each[0])
    return best if most else None


_Entry = tuple[int, Mapping[str, object]]
"""The number of a line, and what it says."""

_BY_COMMAND: Final = "57P01"
_IN_ENGLISH: Final = "terminating connection due to administrator command"
_CLIENT: Final = "client backend"
_LOOKED_AT: Final = 1_000
"""So many lines tell which prefix it is."""
_CSV: Final = {
    "timestamp": 0,
    "pid": 3,
    "session_id": 5,
    "session_start": 8,
    "state_code": 12,
    "backend_type": 23,
}
"""Where the fields stand; the last came with 13."""
_SERVER_LOG_TIME: Final = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) (?P<zone>[A-Za-z0-9+:-]{1,10})"
)
_OFFSET: Final = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?")
_MOST_APART: Final = timedelta(hours=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A client's session that was terminated by command."""

    pid: int
    at: datetime
    started: datetime | None
    """When it began, to the second; only where the log tells."""
    place: Place


class NotALog(Exception):
    """What stands there cannot be understood."""


class ServerLog:
    """Reads the files of one server's log, and knows from when to when it reaches."""

    def __init__(self, *, prefix: re.Pattern[str] | None = None, zone: tzinfo | None = None) -> None:
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._prefix = prefix
        self._zone = zone

    def read(self, file: Path) -> Iterator[Ended]:
        """Every termination in a file, plain or gzipped; raises OSError, EOFError and NotALog."""
        with opened(file) as stream:
            text = TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="\n")
            rest = iter(lambda: text.readline(LONGEST_LINE), "")
            head = list(islice(rest, _LOOKED_AT))
            first = next((line for line in head if line.strip()), "")
            if first.startswith("{"):
                entries = _json(chain(head, rest))
            elif _is_csv(first):
                entries = _csv(chain(head, rest))
            else:
                entries = self._plain(file, head, rest)
            for number, entry in entries:
                yield from self._ended(Place(str(file), number), entry)

    def _plain(self, file: Path, head: list[str], rest: Iterator[str]) -> Iterator[_Entry]:
        prefix = self._prefix or guessed(head)
        if prefix is None:
            if any(line.strip() for line in head):
                message = (
                    f"{file} begins with no log_line_prefix that is known here: say it with --log-line-prefix"
                )
                raise NotALog(message)
            return
        for number, line in enumerate(chain(head, rest), start=1):
            found = prefix.match(line)
            if found is None:
                continue
            fields = found.groupdict()
            text = fields["message"].strip() == _IN_ENGLISH and fields["severity"] == "FATAL"
            yield (
                number,
                {
                    "timestamp": fields.get("time") or fields.get("epoch"),
                    "pid": fields["pid"],
                    "session_id": fields.get("session"),
                    "session_start": fields.get("started"),
                    "state_code": fields.get("state") or (_BY_COMMAND if text else None),
                },
            )

    def _ended(self, place: Place, entry: Mapping[str, object]) -> Iterator[Ended]:
        started, offset = _session(entry)
        at = self._moment(entry.get("timestamp"), offset)
        if at is None:
            return
        self.first = min(at, self.first or at)
        self.last = max(at, self.last or at)
        if entry.get("state_code") != _BY_COMMAND or entry.get("backend_type") not in {None, "", _CLIENT}:
            return
        pid = str(entry.get("pid"))
        if pid.isdigit():
            started = started or self._moment(entry.get("session_start"), offset)
            yield Ended(pid=int(pid), at=at, started=started, place=place)

    def _moment(self, text: object, offset: timedelta | None) -> datetime | None:
        if not isinstance(text, str):
            return None
        found = _SERVER_LOG_TIME.match(text)
        try:
            if found is None:
                return datetime.fromtimestamp(float(text), UTC)
            naive = datetime.fromisoformat(found["time"])
            zone = self._zone or _zone(found["zone"])
            if zone is None and offset is not None:
                zone = timezone(offset)
            if zone is None:
                message = f"the log's times are in {found['zone']}: say with --log-timezone what that is"
                raise NotALog(message)
            return naive.replace(tzinfo=zone).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            return None


def _json(lines: Iterable[str]) -> Iterator[_Entry]:
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            yield number, fields


def _csv(lines: Iterable[str]) -> Iterator[_Entry]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(lines)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            continue
        yield rows.line_num, {name: row[at] for name, at in _CSV.items() if at < len(row)}


def _is_csv(line: str) -> bool:
    found = _SERVER_LOG_TIME.match(line)
    return found is not None and line[found.end() : found.end() + 1] == ","


def _session(entry: Mapping[str, object]) -> tuple[datetime | None, timedelta | None]:
    """When the session began, and how far the log's clock is from UTC: its id tells, whatever the zone."""
    session, started = entry.get("session_id"), entry.get("session_start")
    if not isinstance(session, str):
        return None, None
    try:
        began = datetime.fromtimestamp(int(session.partition(".")[0], 16), UTC)
    except (ValueError, OverflowError, OSError):
        return None, None
    found = _SERVER_LOG_TIME.match(started) if isinstance(started, str) else None
    if found is None:
        return began, None
    try:
        offset = datetime.fromisoformat(found["time"]).replace(tzinfo=UTC) - began
    except ValueError:
        return began, None
    return began, offset if abs(offset) < _MOST_APART else None


def _zone(name: str) -> tzinfo | None:
    if name in {"UTC", "GMT", "Z"}:
        return UTC
    found = _OFFSET.fullmatch(name)
    if found is None:
        return None
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    return timezone(-offset if found["sign"] == "-" else offset)
