"""Reads a record back: whatever stands in the file, no line of it stops the reading."""

import errno
import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from math import isfinite
from pathlib import Path
from typing import BinaryIO, Final, cast

from reaper.record.events import EVENTS, INTENT, OUTCOME, SCHEMA, Event

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


def parse_time(text: object) -> datetime | None:
    """A moment as the record spells it, or nothing; without an offset it is UTC."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        return time and (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
