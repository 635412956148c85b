"""Compares the audit log with what the server says: its own log, and its count of terminations.

A termination in the server's log is recognised by its SQLSTATE, because the text is in the server's language.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from itertools import chain, pairwise
from pathlib import Path
from typing import Final

from reaper.audit.events import COUNTERS, OUTCOME, Event
from reaper.audit.reader import LONGEST_LINE, Location, open_intents, opened, outcomes
from reaper.policy.time import parse_time

OPEN: Final = "open"
"""Stands for the outcome of an intent that has none."""
_TERMINATED: Final = "terminated"
_UNCERTAIN: Final = frozenset({OPEN, "signalled", "unknown"})

_SAME_START: Final = timedelta(seconds=1.5)
"""Tolerance between two start times of one session: the server's log has whole seconds."""
_EARLY: Final = timedelta(seconds=2)
_LATE: Final = timedelta(minutes=1)
_COUNTED_WITHIN: Final = timedelta(seconds=2)
"""A server before 15 updates its count up to this late, so terminations near a count may be in it or not."""

_BY_COMMAND: Final = "57P01"
_CLIENT: Final = "client backend"
_CSV: Final = {
    "timestamp": 0,
    "pid": 3,
    "session_id": 5,
    "session_start": 8,
    "state_code": 12,
    "backend_type": 23,
}
"""The columns of a csvlog; the last one exists since PostgreSQL 13."""
_LOG_TIME: Final = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) (?P<zone>[A-Za-z0-9+:-]{1,10})"
)
_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 9000
_STDERR: Final = (
    "is neither a csvlog nor a jsonlog\n"
    "hint: set log_destination = 'csvlog' on the server (from 15 on also 'jsonlog'), and name that file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTermination:
    """A client session that was terminated by an administrator's command, from the server's log."""

    pid: int
    at: datetime
    started: datetime
    """To the second."""
    place: Location


class NotAServerLog(Exception):
    """A file is no csvlog or jsonlog."""


class ServerLog:
    """Reads the files of one server's log, and notes the period that they cover."""

    def __init__(self) -> None:
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._offsets: dict[str, timedelta] = {}
        """The offset of each time zone; two, if log_timezone has summer time."""

    def read(self, file: Path) -> Iterator[LoggedTermination]:
        """Every termination in a file, plain or gzipped; raises OSError, EOFError and NotAServerLog."""
        with opened(file) as stream:
            text = TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="\n")
            # Bounded: a server's log may hold a line without an end.
            lines = iter(lambda: text.readline(LONGEST_LINE), "")
            first = next((line for line in lines if line.strip()), None)
            if first is None:
                return
            for number, entry in _entries(file, first, lines):
                yield from self._terminations(Location(str(file), number), entry)

    def _terminations(self, place: Location, entry: Mapping[str, object]) -> Iterator[LoggedTermination]:
        started = self._started(entry)
        time, zone = _local_time(entry.get("timestamp"))
        if started is None or time is None or zone not in self._offsets:
            return
        at = time - self._offsets[zone]
        self.first = min(at, self.first or at)
        self.last = max(at, self.last or at)
        # Before PostgreSQL 13, a csvlog has no type of backend.
        if entry.get("state_code") != _BY_COMMAND or entry.get("backend_type") not in {None, "", _CLIENT}:
            return
        pid = str(entry.get("pid"))
        if pid.isdigit():
            yield LoggedTermination(pid=int(pid), at=at, started=started, place=place)

    def _started(self, entry: Mapping[str, object]) -> datetime | None:
        """The start of the session from its id, which is in UTC whatever log_timezone says."""
        try:
            started = datetime.fromtimestamp(int(str(entry.get("session_id")).partition(".")[0], 16), UTC)
        except (ValueError, OverflowError, OSError):
            return None
        # The same moment in log_timezone: the difference is the offset of that zone.
        time, zone = _local_time(entry.get("session_start"))
        if time is not None and abs(time - started) < timedelta(days=1):
            self._offsets[zone] = time - started
        return started


def _local_time(value: object) -> tuple[datetime | None, str]:
    """A time of the server's log, as if it were in UTC, and the name of its time zone."""
    found = _LOG_TIME.match(str(value))
    try:
        time = datetime.fromisoformat(found["time"]).replace(tzinfo=UTC) if found else None
    except ValueError:
        time = None
    # Far from the ends of the calendar, so that an offset can be subtracted.
    return (time if time and _FIRST_YEAR < time.year < _LAST_YEAR else None), found["zone"] if found else ""


def _entries(file: Path, first: str, rest: Iterator[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Each entry of a server's log with its line number."""
    found = _LOG_TIME.match(first)
    if first.startswith("{"):
        return _json_entries(chain([first], rest))
    if found and first[found.end() : found.end() + 1] == ",":
        return _csv_entries(chain([first], rest))
    message = f"{file} {_STDERR}"
    raise NotAServerLog(message)


def _json_entries(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            yield number, fields


def _csv_entries(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(lines)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            # A damaged entry does not hide those after it.
            continue
        yield rows.line_num, {name: row[at] for name, at in _CSV.items() if at < len(row)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedTermination:
    """A session that the reaper terminated, or may have terminated, from the audit log."""

    intent: str
    server: str
    outcome: str
    pid: int
    started: datetime
    seen: datetime
    """The time of the snapshot, by the server's clock."""
    until: datetime
    """The session was gone by then, or should have been."""

    @property
    def certain(self) -> bool:
        """The audit log says that it was terminated."""
        return self.outcome == _TERMINATED


def terminations(events: Sequence[Event]) -> list[AuditedTermination]:
    """The sessions that were terminated, or may have been, by the audit log; ordered by time."""
    found = filter(None, map(_termination, [*outcomes(events), *open_intents(events)]))
    sessions = dict[tuple[str, int, datetime], AuditedTermination]()
    # A session may have several intents, of one run or of several, but it ends only once.
    for each in sorted(found, key=lambda each: not each.certain):
        sessions.setdefault((each.server, each.pid, each.started), each)
    return sorted(sessions.values(), key=lambda each: each.seen)


def _termination(event: Event) -> AuditedTermination | None:
    outcome = event.text("outcome") if event.name == OUTCOME else OPEN
    pid, real = event.fields.get("pid"), event.fields.get("dry_run") is False
    started, seen = parse_time(event.fields.get("backend_start")), parse_time(event.fields.get("server_time"))
    # A cancelled statement ends no session, and a dry run sends no signal.
    terminates = event.text("mode") == "enforce" and event.text("action") == "terminate" and real
    if not terminates or outcome not in {_TERMINATED, *_UNCERTAIN}:
        return None
    if not isinstance(pid, int) or not started or not seen:
        return None
    return AuditedTermination(
        intent=event.text("intent") or "",
        server=event.text("server") or "",
        outcome=outcome or OPEN,
        pid=pid,
        started=started,
        seen=seen,
        until=parse_time(event.fields.get("outcome_at")) or seen + _LATE,
    )


@dataclass(frozen=True, slots=True)
class LogComparison:
    """The audit log beside the server's log."""

    matched: list[tuple[AuditedTermination, LoggedTermination]] = field(default_factory=list)
    missing: list[AuditedTermination] = field(default_factory=list)
    """Terminated according to the audit log, but not in the server's log."""
    outside: list[AuditedTermination] = field(default_factory=list)
    """Before the server's log begins, or after it ends."""
    not_terminated: list[AuditedTermination] = field(default_factory=list)
    """Uncertain in the audit log, and not in the server's log."""
    others: list[LoggedTermination] = field(default_factory=list)
    """Terminated by another program or person."""

    @property
    def resolved(self) -> list[tuple[AuditedTermination, LoggedTermination]]:
        """Uncertain in the audit log, but terminated according to the server's log."""
        return [(ours, logged) for ours, logged in self.matched if not ours.certain]


def compare(
    ours: Sequence[AuditedTermination],
    logged: Sequence[LoggedTermination],
    *,
    first: datetime | None,
    last: datetime | None,
) -> LogComparison:
    """Match each termination of the server's log with one of the audit log."""
    by_pid = dict[int, list[LoggedTermination]]()
    for each in logged:
        by_pid.setdefault(each.pid, []).append(each)
    found = LogComparison()
    for one in ours:
        same = [each for each in by_pid.get(one.pid, []) if _is_same(one, each)]
        if same:
            # A pid may be used again within the tolerance: the nearest in time is the session.
            nearest = min(same, key=lambda each: abs(each.at - one.seen))
            by_pid[one.pid].remove(nearest)
            found.matched.append((one, nearest))
        elif first is None or last is None or not first <= one.seen <= last:
            found.outside.append(one)
        else:
            (found.missing if one.certain else found.not_terminated).append(one)
    found.others.extend(each for rest in by_pid.values() for each in rest)
    found.others.sort(key=lambda each: each.at)
    return found


def _is_same(ours: AuditedTermination, logged: LoggedTermination) -> bool:
    if abs(logged.started - ours.started) > _SAME_START:
        return False
    return ours.seen - _EARLY <= logged.at <= ours.until + _LATE


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedPeriod:
    """The time between two counts of one server."""

    server: str
    begin: datetime
    end: datetime
    counted: int | None
    """The terminations that the server counted; None if they cannot be known."""
    recorded: int
    """The terminations that are certain in the audit log."""
    possible: int
    """The terminations that there may have been according to the audit log."""
    why: str = ""
    """Why the count cannot be known."""

    @property
    def agrees(self) -> bool:
        """The server counted at least the certain terminations."""
        return self.counted is None or self.counted >= self.recorded

    @property
    def others(self) -> tuple[int, int]:
        """The least and the largest number of terminations by others."""
        counted = self.counted or 0
        return max(0, counted - self.possible), max(0, counted - self.recorded)


def counted_periods(events: Iterable[Event], ours: Sequence[AuditedTermination]) -> Iterator[CountedPeriod]:
    """Each period between two counts of one server."""
    counts = dict[str, list[tuple[datetime, Event]]]()
    for event in events:
        at = parse_time(event.fields.get("server_time"))
        if event.name == COUNTERS and at is not None:
            counts.setdefault(event.text("server") or "", []).append((at, event))
    for server, counted in counts.items():
        for (begin, before), (end, after) in pairwise(sorted(counted, key=lambda each: each[0])):
            # Terminations near a count may be in it or not: they are possible, but not certain.
            earliest, latest = begin - _COUNTED_WITHIN, end + _COUNTED_WITHIN
            here = [each for each in ours if each.server == server and earliest < each.seen < latest]
            difference, why = _difference(before.fields, after.fields)
            yield CountedPeriod(
                server=server,
                begin=begin,
                end=end,
                counted=difference,
                recorded=sum(_is_within(each, begin, end) for each in here),
                possible=len(here),
                why=why,
            )


def _is_within(ours: AuditedTermination, begin: datetime, end: datetime) -> bool:
    return ours.certain and begin + _COUNTED_WITHIN <= ours.seen and ours.until <= end - _COUNTED_WITHIN


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[int | None, str]:
    first, last = before.get("terminations"), after.get("terminations")
    if not isinstance(first, int) or not isinstance(last, int):
        return None, "this server does not count (before 14)"
    same = ("server_started", "counters_reset", "databases")
    if last < first or any(before.get(name) != after.get(name) for name in same):
        return None, "the server was restarted, a counter reset, or a database created or dropped"
    return last - first, ""
