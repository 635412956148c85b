"""Reads an audit log: its files in their order, their lines, and the events in them.

Rotation leaves copies such as `audit.jsonl.1` and `audit.jsonl-20250618.gz` beside the file. Whatever is in a
file, no line of it stops the reading.
"""

import errno
import gzip
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from math import isfinite
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol, cast

from reaper.audit.events import EVENTS, INTENT, OUTCOME, SCHEMA, Event
from reaper.policy.plan import Result
from reaper.policy.time import from_datetime, isoformat, parse_time

GROUPS: Final = ("policy", "application", "role", "outcome", "server", "database")

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes; far more than the longest query text that a server keeps, with every character escaped."""

UNPACK_ERRORS: Final = (EOFError, zlib.error, gzip.BadGzipFile)

_GZIP: Final = b"\x1f\x8b"
_BEGINNING: Final = b'{"schema": '
_RETRIES: Final = 20
_RETRY_SECONDS: Final = 0.01

_STAMP: Final = r"[.-](?P<stamp>[0-9][0-9T_:.-]*?)(?:\.gz)?"
_SUFFIX: Final = re.compile(_STAMP)
# Dots alone are no name: a folder that Kubernetes has mounted holds a `..1`.
_COPY: Final = re.compile(f"(?P<log>.*?[^.].*?){_STAMP}")
_LONGEST_NUMBER: Final = 5
"""A stamp with more digits is a date."""


def rotated_copies(path: Path) -> list[Path]:
    """The copies beside this audit log, the oldest first; raises OSError if the folder cannot be read."""
    beside = {file.name: file for file in path.parent.iterdir() if _stamp(path, file)}
    # During compression both files exist, and the compressed one is not complete yet.
    incomplete = {f"{name}.gz" for name in beside}
    complete = [file for name, file in beside.items() if name not in incomplete and file.is_file()]
    return _in_order(path, complete)


def files_of_audit_logs(files: Iterable[Path]) -> list[Sequence[Path]]:
    """The files of each audit log, the oldest first, with the copies beside a file that is no copy itself."""
    logs = dict[Path, dict[Path, None]]()
    for file in files:
        found = _COPY.fullmatch(file.name)
        path = file.with_name(found["log"]) if found else file
        copies = [] if found else rotated_copies(file)
        # Right after a rotation there is no file at the path: the next event creates it.
        given = [] if copies and not file.exists() else [file]
        logs.setdefault(path, {}).update(dict.fromkeys([*copies, *given]))
    return [_in_order(path, copies) for path, copies in logs.items()]


def _in_order(path: Path, copies: Iterable[Path]) -> list[Path]:
    stamps = {file: _stamp(path, file) for file in copies}
    numbered = [stamp.isdigit() and len(stamp) <= _LONGEST_NUMBER for stamp in stamps.values() if stamp]
    if all(numbered):
        return sorted(stamps, key=lambda file: -int(stamps[file] or 0))
    # The audit log itself has no stamp, and comes last. If the scheme was changed, the time of the last write
    # decides: neither a rename nor compression changes it.
    written = {file: any(numbered) and file.stat().st_mtime_ns for file in stamps}
    return sorted(stamps, key=lambda file: (stamps[file] == "", written[file], stamps[file]))


def _stamp(path: Path, file: Path) -> str:
    """What rotation appended to the name of the audit log; empty if the file is no copy of it."""
    if not file.name.startswith(path.name):
        return ""
    found = _SUFFIX.fullmatch(file.name.removeprefix(path.name))
    return found["stamp"] if found else ""


class LineSource(Protocol):
    """A stream that is read line by line."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, or its first bytes."""


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


class WrittenFile:
    """A file that its writer may be appending to. Reading a line may wait, so it is for commands only."""

    def __init__(self, file: LineSource) -> None:
        self._file = file

    def readline(self, limit: int, /) -> bytes:
        """The next line, with the rest of it if it was being written."""
        line = self._file.readline(limit)
        # A write becomes visible bit by bit, and for a moment its last line looks torn.
        for _ in range(_RETRIES):
            if not line or line.endswith(b"\n") or len(line) == limit:
                break
            time.sleep(_RETRY_SECONDS)
            line += self._file.readline(limit - len(line))
        return line


class Location(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        """`audit.jsonl:17`."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLine:
    """One line as it is in the file, or the next piece of a line that is too long for memory."""

    number: int
    data: bytes = b""
    """Without its newline."""
    fields: Mapping[str, object] | None = None
    """Its fields, if it is a whole entry."""
    why: str = ""
    """Otherwise why it is none."""
    continues: bool = False
    """It is not the first piece of its line."""
    unreadable: bool = False
    """A compressed file is damaged, and ends here."""


def iterate_lines(stream: LineSource) -> Iterator[RawLine]:
    """Every line of a stream, whatever is in it."""
    number, inside_long = 0, False
    try:
        while data := stream.readline(LONGEST_LINE):
            number += not inside_long
            ends, line = data.endswith(b"\n"), data.removesuffix(b"\n")
            too_long = inside_long or (len(data) == LONGEST_LINE and not ends)
            fields, why = (None, f"longer than {LONGEST_LINE} bytes") if too_long else _parse(line)
            yield RawLine(number=number, data=line, fields=fields, why=why, continues=inside_long)
            inside_long = too_long and not ends
    except UNPACK_ERRORS as error:
        why = f"the compressed file is damaged from here on: {error}"
        yield RawLine(number=number + 1, why=why, unreadable=True)


def _parse(line: bytes) -> tuple[dict[str, object] | None, str]:
    """The fields of a whole entry of any version; otherwise None, and why it is none."""
    try:
        fields = json.loads(line.decode(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return None, "not JSON, so probably torn" if looks_torn(line) else "no line of an audit log"
    whole = isinstance(fields, dict) and "schema" in fields
    return (fields, "") if whole else (None, "not an event of an audit log")


def is_entry(line: bytes) -> bool:
    """Return True if the line is a whole entry of any version."""
    return _parse(line)[0] is not None


def looks_torn(line: bytes) -> bool:
    """Return True if it may be the beginning of an entry, or the zeros that a disk leaves in its place."""
    return _BEGINNING.startswith(line[: len(_BEGINNING)]) or not line.strip(b"\0")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        message = f"{text} is no number in JSON"
        raise ValueError(message)
    return number


class BadLine(NamedTuple):
    """A line that is no event: torn by a crash or a full disk, or written by another program."""

    place: Location
    why: str

    def __str__(self) -> str:
        """`audit.jsonl:17: not JSON, so probably torn`."""
        return f"{self.place}: {self.why}"


def read_events(source: Path | BinaryIO) -> Iterator[Event | BadLine]:
    """Read a file, plain or gzipped, or a stream; OSError only if it cannot be opened or read."""
    name = str(source) if isinstance(source, Path) else str(getattr(source, "name", "-"))
    with opened(source) as stream:
        for raw in iterate_lines(stream):
            place = Location(name, raw.number)
            if raw.fields is not None:
                event = _event(raw.fields)
                yield event if isinstance(event, Event) else BadLine(place, event)
            elif raw.unreadable or (raw.data.strip() and not raw.continues):
                yield BadLine(place, raw.why)


def _event(fields: Mapping[str, object]) -> Event | str:
    """The event of a whole entry, or why it is none."""
    name = fields.get("event")
    if fields["schema"] != SCHEMA or not isinstance(name, str) or name not in EVENTS:
        return "an event of another version of the audit log"
    at = parse_time(fields.get("time"))
    return Event(name=name, time=at, fields=fields) if at else "an event without a time"


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
    largest_first = sorted(groups.items(), key=lambda group: (-len(group[1]), str(group[0])))
    return [
        {
            by: value,
            **{column: sum(event.text("outcome") == column for event in events) for column in columns},
            "total": len(events),
            "last": format_time(max(event.time for event in events)),
        }
        for value, events in largest_first
    ]


def format_time(time: datetime) -> str | None:
    """A time as the audit log spells it."""
    return isoformat(from_datetime(time))
