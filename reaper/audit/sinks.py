"""Sinks take whole lines, or raise AuditLogFailed.

A sink is not a logging handler, because a handler swallows the error of a full disk.
"""

import errno
import json
import math
import os
import select
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from socket import gethostname
from typing import Final, NamedTuple, Protocol

from reaper import __version__
from reaper.audit.chain import Chain
from reaper.audit.events import A_STREAM, CLOSED, OPENED, SCHEMA, TORN, Event
from reaper.policy.time import from_datetime, isoformat

STALLED_MS: Final = 5_000
"""If the reader of our output stops reading for this time, that is a failure."""

_CHECK_SECONDS: Final = 1.0
"""With nothing to write, a sink is checked at most this often, whatever the number of servers."""

# ensure_ascii: no name can break a line, move a cursor or change the direction of the text.
_JSON: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=repr)

Clock = Callable[[], datetime]


class AuditLogFailed(Exception):
    """The audit log cannot be written, and therefore nothing may be terminated."""

    def __init__(self, *, where: str, why: str, lost: bool = False, hint: str = "") -> None:
        sentence = f"the audit log {where} cannot be written: {why}; nothing is terminated until it can"
        super().__init__(f"{sentence}\nhint: {hint}" if hint else sentence)
        self.why = why
        self.lost = lost
        """Lines that were written since the last sync may be lost as well."""


class Notice(NamedTuple):
    """Something that a sink found before it wrote: the name of the event to write, and its detail."""

    event: str
    detail: str


class ChainHead(NamedTuple):
    """The end of a sink's chain; a copy kept elsewhere shows later if lines were cut off the end."""

    file: str
    digest: str


class Sink(Protocol):
    """Takes whole lines, all of a batch or none that counts, and links each to the one before it."""

    @property
    def name(self) -> str:
        """The path, or the name of the stream."""

    @property
    def head(self) -> str | None:
        """The digest of the last line; None before the first line, or without a chain."""

    def prepare(self) -> Sequence[Notice]:
        """Open what must be open, and return what was found there."""

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Take every byte or raise AuditLogFailed; an empty durable batch syncs the earlier ones."""

    def reopen(self) -> None:
        """Close the file, so that the next line goes to the file that is then at the path."""

    def close(self) -> None:
        """Close for good."""


class StreamSink:
    """An open descriptor such as stdout: pipe, terminal or redirected file."""

    def __init__(self, fd: int, *, name: str = "stdout", stalled_ms: int = STALLED_MS) -> None:
        self.name = name
        self._fd = fd
        self._stalled_ms = stalled_ms
        self._opened = False
        self._chain = Chain()
        self._torn = False
        self._stalled = False

    @property
    def head(self) -> str | None:
        """The digest of the last line of this run."""
        return self._chain.head

    def prepare(self) -> Sequence[Notice]:
        """The first time: that it was opened. After a failure: that its last line is torn."""
        found = [] if self._opened else [Notice(OPENED, A_STREAM)]
        self._opened = True
        return [*found, Notice(TORN, "the last line is torn")] if self._torn else found

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Write line by line, so that each short line is atomic if others write to the pipe too."""
        try:
            for line in lines:
                self._end_torn_line()
                self._write_line(line)
            # Only a redirected file can be synced; a pipe cannot.
            if durable and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fdatasync(self._fd)
        except OSError as error:
            raise AuditLogFailed(where=self.name, why=error.strerror or str(error)) from error

    def reopen(self) -> None:
        """Do nothing: a stream cannot be rotated."""

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the caller."""

    def _end_torn_line(self) -> None:
        if self._torn:
            self._wait_for_room()
            os.write(self._fd, b"\n")
            self._torn = False

    def _write_line(self, line: bytes) -> None:
        after = self._chain.copy()
        (linked,) = after.link([line])
        rest = memoryview(linked)
        try:
            while rest:
                self._wait_for_room()
                # poll promises room for PIPE_BUF bytes, so that a write of that size cannot block.
                rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]
        finally:
            taken = len(linked) - len(rest)
            self._torn = 0 < taken < len(linked)
            # The newline is no part of the digest: without it, the line counts as whole.
            if taken >= len(linked) - len(b"\n"):
                self._chain = after
            elif taken:
                self._chain.add_fragment(linked[:taken])

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        # Waits only once: all servers share this event loop, and a stalled reader would stop them all.
        if not poll.poll(0 if self._stalled else self._stalled_ms):
            self._stalled = True
            raise TimeoutError(errno.ETIMEDOUT, f"its reader read nothing for {self._stalled_ms / 1_000:g} s")
        self._stalled = False


def encode_event(event: Event, *, seq: int, run: str) -> bytes:
    """The event as one line."""
    fields: Mapping[str, object] = {
        "schema": SCHEMA,
        "event": event.name,
        "time": isoformat(from_datetime(event.time)),
        "seq": seq,
        "run": run,
        "version": __version__,
        "host": gethostname(),
        **event.fields,
    }
    return _JSON.encode(fields).encode("ascii") + b"\n"


class RetryingSink:
    """Writes every event to one sink; after a failure, what it could not take is written first.

    An event may so be written twice, but is never lost. The id of its intent shows that it is the same event.
    """

    def __init__(self, sink: Sink, *, clock: Clock, run: str) -> None:
        self._sink = sink
        self._clock = clock
        self._run = run
        self._numbers = count(1)
        self._pending: list[Event] = []
        self._unsynced: list[Event] = []
        self._used = False
        self._checked_at = -math.inf

    @property
    def head(self) -> ChainHead | None:
        """The end of the chain; None if there is none."""
        digest = self._sink.head
        return ChainHead(self._sink.name, digest) if digest else None

    def write(self, events: Sequence[Event] = (), *, durable: bool = False) -> None:
        """Write pending events, then these; if it raises AuditLogFailed, these are not kept for later."""
        with self._keeping_lost_events():
            self._put(map(self._event, self._sink.prepare()))
            # In this order: an outcome that waited comes before anything newer.
            self._put(self._pending)
            self._pending = []
            self._put(events, durable=durable)

    def deliver(self, events: Sequence[Event], *, durable: bool = False) -> None:
        """Write these events now; if that fails, before anything else later."""
        try:
            self.write(events, durable=durable)
        except AuditLogFailed:
            self._pending = [*self._pending, *events]
            raise

    def flush(self) -> None:
        """Sync what was written; with nothing to sync, check from time to time that the sink still works."""
        now = time.monotonic()
        if self._pending or self._unsynced or now - self._checked_at >= _CHECK_SECONDS:
            self.write(durable=True)
            self._checked_at = now

    def reopen(self) -> None:
        """Close the file that was rotated."""
        self._checked_at = -math.inf
        with self._keeping_lost_events():
            self._sink.reopen()

    def close(self) -> None:
        """Sync the rest, log the end of this run, and close for good."""
        # A run that wrote nothing leaves no trace in the file.
        try:
            if self._used or self._pending:
                self.write([self._event(Notice(CLOSED, "closed"))], durable=True)
        finally:
            self._used = False
            self._sink.close()

    def _put(self, events: Iterable[Event], *, durable: bool = False) -> None:
        events = list(events)
        if not events and not durable:
            return
        self._used = self._used or bool(events)
        lines = [encode_event(event, seq=next(self._numbers), run=self._run) for event in events]
        self._sink.write(lines, durable=durable)
        self._unsynced = [] if durable else [*self._unsynced, *events]

    def _event(self, notice: Notice) -> Event:
        fields = {"file": self._sink.name, "detail": notice.detail}
        return Event(name=notice.event, time=self._clock(), fields=fields)

    @contextmanager
    def _keeping_lost_events(self) -> Iterator[None]:
        try:
            yield
        except AuditLogFailed as failure:
            self._checked_at = -math.inf
            # A failed sync loses lines that were written without an error before.
            if failure.lost:
                self._pending = [*self._unsynced, *self._pending]
                self._unsynced = []
            raise
