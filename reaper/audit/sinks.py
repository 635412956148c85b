"""Where the lines go, and the error that says that they did not get there.

Not a logging handler: those swallow a full disk. A sink either has written every byte, or says so.
"""

import errno
import json
import math
import os
import select
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from socket import gethostname
from typing import Any, Final, NamedTuple, Protocol

import structlog

from reaper import __version__
from reaper.audit.chain import Chain
from reaper.audit.events import A_STREAM, CLOSED, OPENED, SCHEMA, TORN, Event
from reaper.policy.time import from_datetime, isoformat

# ensure_ascii: no name can break a line, move a cursor or turn the reading direction.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=repr)


def _rendered(fields: Mapping[str, object], **_: object) -> str:
    return _ENCODER.encode(fields)


class Pen:
    """Renders the events of one life of the writer, numbered."""

    def __init__(self, *, run: str) -> None:
        self._run = run
        self._numbers = count(1)
        self._log = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[self._stamp, structlog.processors.JSONRenderer(serializer=_rendered)],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=False,
            version=__version__,
            host=gethostname(),
        ).bind()

    def line(self, event: Event) -> bytes:
        """The event as one whole line."""
        time = isoformat(from_datetime(event.time))
        text: str = self._log.msg(event.name, **{**event.fields, "time": time})
        return text.encode("ascii") + b"\n"

    def _stamp(self, _: object, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        first = {"schema": SCHEMA, "event": fields.pop("event"), "time": fields.pop("time")}
        return {**first, "seq": next(self._numbers), "run": self._run, **fields}


class AuditLogFailed(Exception):
    """The record cannot be written, and therefore nothing may be terminated."""

    def __init__(self, *, where: str, why: str, lost: bool = False) -> None:
        super().__init__(
            f"the audit record {where} cannot be written: {why}; nothing is terminated until it can"
        )
        self.where = where
        self.why = why
        self.lost = lost
        """Whether lines that were taken since the last durable write may be lost as well."""


class NotReady(Exception):
    """What stands there is not what `ready` found: it must look, and tell, before anything is written."""


class Finding(NamedTuple):
    """What a sink found before it wrote: the name of the event that tells it, and the detail."""

    name: str
    detail: str


class Sink(Protocol):
    """Takes whole lines, all of a batch or none that counts, and links each to the one before it."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def head(self) -> str | None:
        """The digest of the last line; nothing when there is none, or no chain."""

    def ready(self) -> Sequence[Finding]:
        """Open what must be open, and tell what was found there."""

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Take every byte or raise AuditLogFailed; an empty durable batch makes last what was taken before.

        Raises NotReady, and has taken nothing, when things are no longer as `ready` found them.
        """

    def reopen(self) -> None:
        """Let go of the file, so that the next line goes to whatever stands at the path by then."""

    def close(self) -> None:
        """Write nothing any more."""


STALLED_MS: Final = 5_000
"""How long a reader of our output may stop reading before that is a failure."""


class StreamSink:
    """An open descriptor such as stdout: pipe, terminal or redirected file."""

    def __init__(self, fd: int, *, name: str = "stdout", stalled_ms: int = STALLED_MS) -> None:
        self.name = name
        self._fd = fd
        self._stalled_ms = stalled_ms
        self._findings = [Finding(OPENED, A_STREAM)]
        self._chain = Chain()
        self._torn = False
        self._stalled = False

    @property
    def head(self) -> str | None:
        """The digest of the last line, of this life."""
        return self._chain.head

    def ready(self) -> Sequence[Finding]:
        """The first time, that it was opened; after a failure, that its last line is torn."""
        found, self._findings = self._findings, []
        return [*found, Finding(TORN, "the last line is torn")] if self._torn else found

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Write line by line, so that each short one is atomic among the writers of a pipe."""
        with self._failing():
            for line in lines:
                self._end_what_is_torn()
                self._put(line)
            if durable and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fdatasync(self._fd)

    def reopen(self) -> None:
        """A stream cannot be rotated."""

    def close(self) -> None:
        """The descriptor belongs to whoever opened it."""

    def _end_what_is_torn(self) -> None:
        if self._torn:
            self._await_room()
            os.write(self._fd, b"\n")
            self._torn = False

    def _put(self, line: bytes) -> None:
        after = self._chain.copy()
        (linked,) = after.carry_on([line])
        rest = memoryview(linked)
        try:
            while rest:
                self._await_room()
                # A poll that says yes promises room for PIPE_BUF bytes, so that no write can hang.
                rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]
        finally:
            taken = len(linked) - len(rest)
            self._torn = 0 < taken < len(linked)
            if taken >= len(linked) - len(b"\n"):
                self._chain = after
            elif taken:
                self._chain.loose(linked[:taken])

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        # Once stalled, the next asks only whether there is room: all servers share this loop.
        if not poll.poll(0 if self._stalled else self._stalled_ms):
            self._stalled = True
            raise TimeoutError(errno.ETIMEDOUT, f"nobody read from it for {self._stalled_ms / 1_000:g} s")
        self._stalled = False

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AuditLogFailed(where=self.name, why=error.strerror or str(error)) from error


Clock = Callable[[], datetime]

_SOUND_SECONDS: Final = 1.0
"""So long a record that was fine is taken to be when there is nothing to write: a fleet shares the look."""


class Head(NamedTuple):
    """The end of a chain: whoever notes it elsewhere can tell later whether it was still there."""

    file: str
    digest: str


class Copy:
    """Brings every event to one sink: what it could not take it gets first when it works again.

    An event can so arrive twice, never not at all; its intent tells that it is the same one.
    """

    def __init__(self, sink: Sink, *, clock: Clock, run: str) -> None:
        self._sink = sink
        self._clock = clock
        self._pen = Pen(run=run)
        self._owed: list[Event] = []
        self._unsynced: list[Event] = []
        self._used = False
        self._sound_at = -math.inf

    def write(self, events: Sequence[Event] = (), *, durable: bool = False) -> None:
        """Pay what is owed, then write these; after a AuditLogFailed these are the caller's to give up."""
        with self._owing_what_is_lost():
            self._put(map(self._told, self._sink.ready()))
            self._put(self._owed)
            self._owed = []
            self._put(events, durable=durable)

    def flush(self) -> None:
        """Make last what was written; where that is nothing, see from time to time whether it could be."""
        now = time.monotonic()
        if self._owed or self._unsynced or now - self._sound_at >= _SOUND_SECONDS:
            self.write(durable=True)
            self._sound_at = now

    def deliver(self, events: Sequence[Event], *, durable: bool = False) -> None:
        """Write these, now or, when that fails, before anything else."""
        try:
            self.write(events, durable=durable)
        except AuditLogFailed:
            self._owed = [*self._owed, *events]
            raise

    @property
    def head(self) -> Head | None:
        """Where the chain stands; nothing when there is none."""
        digest = self._sink.head
        return Head(self._sink.name, digest) if digest else None

    def reopen(self) -> None:
        """Let go of the file, which somebody has moved."""
        self._sound_at = -math.inf
        with self._owing_what_is_lost():
            self._sink.reopen()

    def close(self) -> None:
        """Make the rest last, say so, and write nothing any more."""
        try:
            if self._used or self._owed:
                self.write([self._told(Finding(CLOSED, "closed"))], durable=True)
        finally:
            self._used = False
            self._sink.close()

    def _put(self, events: Iterable[Event], *, durable: bool = False) -> None:
        events = list(events)
        if not events and not durable:
            return
        self._used = self._used or bool(events)
        lines = [self._pen.line(event) for event in events]
        while True:
            try:
                self._sink.write(lines, durable=durable)
            except NotReady:
                self._put(map(self._told, self._sink.ready()))
            else:
                break
        self._unsynced = [] if durable else [*self._unsynced, *events]

    def _told(self, finding: Finding) -> Event:
        fields = {"file": self._sink.name, "detail": finding.detail}
        return Event(name=finding.name, time=self._clock(), fields=fields)

    @contextmanager
    def _owing_what_is_lost(self) -> Iterator[None]:
        try:
            yield
        except AuditLogFailed as failure:
            self._sound_at = -math.inf
            if failure.lost:
                self._owed = [*self._unsynced, *self._owed]
                self._unsynced = []
            raise
