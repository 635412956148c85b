"""Reads a record back: whatever stands in the file, no line of it stops the reading."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """Which events are asked for; what was not given asks for all."""

    globs: Mapping[str, Sequence[Glob]] = field(default_factory=lambda: MappingProxyType({}))
    pids: frozenset[int] = frozenset()
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, event: Event) -> bool:
        """Whether every question is answered yes; a field that is not known answers none."""
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


def outcomes(events: Iterable[Event]) -> list[Event]:
    """One outcome for each intent, in order of time."""
    found = dict[str, Event]()
    for event in events:
        if event.name != OUTCOME:
            continue
        intent = event.text("intent") or f"none/{len(found)}"
        # A repeated line says the same; an outcome that is known counts more than one that is not.
        if intent not in found or found[intent].text("outcome") == Result.UNKNOWN:
            found[intent] = event
    return sorted(found.values(), key=lambda event: event.time)


def summary(found: Iterable[Event], by: str) -> list[dict[str, object]]:
    """A row for each value of a field: how many of each outcome, how many in all, and when the last was."""
    groups = dict[str | None, list[Event]]()
    for event in found:
        groups.setdefault(event.text(by), []).append(event)
    columns = _columns(groups.values()) if by != "outcome" else []
    rows: list[dict[str, object]] = [
        {
            by: group,
            **{column: sum(event.text("outcome") == column for event in events) for column in columns},
            "total": len(events),
            "last": moment(max(event.time for event in events)),
        }
        for group, events in groups.items()
    ]
    return sorted(rows, key=_largest_first(by))


def moment(time: datetime) -> str | None:
    """A moment as the record spells it."""
    return isoformat(from_datetime(time))


def _columns(groups: Iterable[Iterable[Event]]) -> list[str]:
    """The outcomes that occur, in the order in which they are defined."""
    occur = {event.text("outcome") for events in groups for event in events}
    return [result for result in Result if result in occur]


def _largest_first(by: str) -> Callable[[Mapping[str, object]], tuple[int, str]]:
    return lambda row: (-int(str(row["total"])), str(row[by]))


LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes; far more than the longest query text that a server keeps, every character of it escaped."""

_GZIP: Final = b"\x1f\x8b"
_BEGINNING: Final = b'{"schema": '


@dataclass(frozen=True, slots=True, kw_only=True)
class Torn:
    """A line that is no event: torn by a crash or a full disk, or somebody else's."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        """`audit.jsonl:17: not JSON, so probably torn`."""
        return f"{self.file}:{self.line}: {self.why}"


def read_events(source: Path | BinaryIO) -> Iterator[Event | Torn]:
    """Read a file, plain or gzipped, or a stream; only one that cannot be opened or read raises OSError."""
    name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "-"))
    with opened(source) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if isinstance(line, str):
                yield Torn(file=name, line=number, why=line)
            elif line.strip():
                event = _event(line)
                yield event if isinstance(event, Event) else Torn(file=name, line=number, why=event)


def open_intents(events: Iterable[Event | Torn]) -> list[Event]:
    """The intents that have no outcome, in the order in which they were written."""
    waiting = dict[str, Event]()
    settled = set[str]()
    for event in events:
        intent = event.text("intent") if isinstance(event, Event) else None
        if not isinstance(event, Event) or intent is None:
            continue
        if event.name == INTENT and intent not in settled:
            waiting[intent] = event
        # Remembered only when it comes first: files may be given in any order.
        elif event.name == OUTCOME and waiting.pop(intent, None) is None:
            settled.add(intent)
    return list(waiting.values())


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The bytes of a file, plain or gzipped, or of a stream."""
    if not isinstance(source, Path):
        yield source
        return
    with source.open("rb") as file:
        if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is a device, and may have no end")
        if is_packed(file):
            yield cast("BinaryIO", gzip.GzipFile(fileobj=file))
        else:
            yield file


def is_packed(file: BufferedReader) -> bool:
    """Whether what comes next is gzipped."""
    return file.peek(len(_GZIP)).startswith(_GZIP)


def _lines(stream: BinaryIO) -> Iterator[bytes | str]:
    """Each line, or why it cannot be had."""
    try:
        while line := stream.readline(LONGEST_LINE):
            if len(line) < LONGEST_LINE or line.endswith(b"\n"):
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_LINE)
            yield f"longer than {LONGEST_LINE} bytes"
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield f"the compressed file is damaged from here on: {error}"


def _event(line: bytes) -> Event | str:
    """The event of a line, or why it is none."""
    fields = parsed(line)
    if isinstance(fields, str):
        return fields
    name = fields.get("event")
    if fields["schema"] != SCHEMA or not isinstance(name, str) or name not in EVENTS:
        return "an event of another version of this record"
    time = parse_time(fields.get("time"))
    return Event(name=name, time=time, fields=fields) if time else "an event without a time"


def parsed(line: bytes) -> dict[str, object] | str:
    """The fields of a whole line, of whatever version, or why it is none."""
    try:
        fields = json.loads(line.decode(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return "not JSON, so probably torn" if looks_torn(line) else "no line of this record"
    whole = isinstance(fields, dict) and "schema" in fields
    return fields if whole else "not an event of this record"


def looks_torn(line: bytes) -> bool:
    """Whether it may be the beginning of a line of ours, or what a disk leaves in its place."""
    return _BEGINNING.startswith(line[: len(_BEGINNING)]) or not line.strip(b"\0")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        message = f"{text} is no number that JSON knows"
        raise ValueError(message)
    return number
