"""Reads an audit log back: whatever is in the file, no line of it stops the reading."""

import errno
import gzip
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import BufferedReader
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, cast

from reaper.audit.events import EVENTS, INTENT, OUTCOME, SCHEMA, Event
from reaper.policy.plan import Result
from reaper.policy.selector import Glob
from reaper.policy.time import from_datetime, isoformat, parse_time

GROUPS: Final = ("policy", "application", "role", "outcome", "server", "database")

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes; far more than the longest query text that a server keeps, with every character escaped."""

UNPACK_ERRORS: Final = (EOFError, zlib.error, gzip.BadGzipFile)

_GZIP: Final = b"\x1f\x8b"
_BEGINNING: Final = b'{"schema": '


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a query selects; a field that is left out selects all."""

    globs: Mapping[str, Sequence[Glob]] = field(default_factory=lambda: MappingProxyType({}))
    pids: frozenset[int] = frozenset()
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, event: Event) -> bool:
        """Return True if all conditions hold; a condition on a missing field does not."""
        pid = event.fields.get("pid")
        return (
            (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
            and (not self.pids or (isinstance(pid, int) and pid in self.pids))
            and all(
                any(glob.matches(event.text(key)) for glob in globs)
                for key, globs in self.globs.items()
                if globs
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no event: torn by a crash or a full disk, or written by another program."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        """`audit.jsonl:17: not JSON, so probably torn`."""
        return f"{self.file}:{self.line}: {self.why}"


def read_events(source: Path | BinaryIO) -> Iterator[Event | BadLine]:
    """Read a file, plain or gzipped, or a stream; OSError only if it cannot be opened or read."""
    name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "-"))
    with opened(source) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if isinstance(line, str):
                yield BadLine(file=name, line=number, why=line)
            elif line.strip():
                event = _event(line)
                yield event if isinstance(event, Event) else BadLine(file=name, line=number, why=event)


def open_intents(events: Iterable[Event | BadLine]) -> list[Event]:
    """The intents without an outcome, in the order in which they were written."""
    waiting = dict[str, Event]()
    closed = set[str]()
    for event in events:
        intent = event.text("intent") if isinstance(event, Event) else None
        if not isinstance(event, Event) or intent is None:
            continue
        if event.name == INTENT and intent not in closed:
            waiting[intent] = event
        # Kept only if it comes before its intent, because files may be given in any order.
        elif event.name == OUTCOME and waiting.pop(intent, None) is None:
            closed.add(intent)
    return list(waiting.values())


def outcomes(events: Iterable[Event]) -> list[Event]:
    """One outcome for each intent, ordered by time."""
    found = dict[str, Event]()
    for event in events:
        if event.name != OUTCOME:
            continue
        intent = event.text("intent") or f"none/{len(found)}"
        # A line may be repeated after a failure. A known outcome replaces an unknown one.
        if intent not in found or found[intent].text("outcome") == Result.UNKNOWN:
            found[intent] = event
    return sorted(found.values(), key=lambda event: event.time)


def summary(found: Iterable[Event], by: str) -> list[dict[str, object]]:
    """A row for each value of a field: the number of each outcome, the total, and the time of the last."""
    groups = dict[str | None, list[Event]]()
    for event in found:
        groups.setdefault(event.text(by), []).append(event)
    occurring = {event.text("outcome") for events in groups.values() for event in events}
    columns = [result for result in Result if result in occurring] if by != "outcome" else []
    rows: list[dict[str, object]] = [
        {
            by: group,
            **{column: sum(event.text("outcome") == column for event in events) for column in columns},
            "total": len(events),
            "last": format_time(max(event.time for event in events)),
        }
        for group, events in groups.items()
    ]
    return sorted(rows, key=_largest_first(by))


def _largest_first(by: str) -> Callable[[Mapping[str, object]], tuple[int, str]]:
    return lambda row: (-int(str(row["total"])), str(row[by]))


def format_time(time: datetime) -> str | None:
    """A time as the audit log spells it."""
    return isoformat(from_datetime(time))


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The bytes of a file, plain or gzipped, or of a stream."""
    if not isinstance(source, Path):
        yield source
        return
    with source.open("rb") as file:
        if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is a device, and may have no end")
        yield cast("BinaryIO", gzip.GzipFile(fileobj=file)) if is_gzipped(file) else file


def is_gzipped(file: BufferedReader) -> bool:
    """Return True if the next bytes are those of a gzip file."""
    return file.peek(len(_GZIP)).startswith(_GZIP)


def _lines(stream: BinaryIO) -> Iterator[bytes | str]:
    """Each line, or why it cannot be read."""
    try:
        while line := stream.readline(LONGEST_LINE):
            if len(line) < LONGEST_LINE or line.endswith(b"\n"):
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_LINE)
            yield f"longer than {LONGEST_LINE} bytes"
    except UNPACK_ERRORS as error:
        yield f"the compressed file is damaged from here on: {error}"


def _event(line: bytes) -> Event | str:
    """The event of a line, or why it is none."""
    fields = parse_line(line)
    if isinstance(fields, str):
        return fields
    name = fields.get("event")
    if fields["schema"] != SCHEMA or not isinstance(name, str) or name not in EVENTS:
        return "an event of another version of the audit log"
    time = parse_time(fields.get("time"))
    return Event(name=name, time=time, fields=fields) if time else "an event without a time"


def parse_line(line: bytes) -> dict[str, object] | str:
    """The fields of a whole entry of any version, or why it is none."""
    try:
        fields = json.loads(line.decode(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return "not JSON, so probably torn" if looks_torn(line) else "no line of an audit log"
    whole = isinstance(fields, dict) and "schema" in fields
    return fields if whole else "not an event of an audit log"


def looks_torn(line: bytes) -> bool:
    """Return True if it may be the beginning of an entry, or the zeros that a disk leaves in its place."""
    return _BEGINNING.startswith(line[: len(_BEGINNING)]) or not line.strip(b"\0")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        message = f"{text} is no number in JSON"
        raise ValueError(message)
    return number
