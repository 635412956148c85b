"""One copy of the record: a sink, and what it is still owed."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, NamedTuple

from reaper.record.events import CLOSED, Event
from reaper.record.pen import Pen
from reaper.record.writer import Finding, NotReady, RecordFailed, Sink

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
        """Pay what is owed, then write these; after a RecordFailed these are the caller's to give up."""
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
        except RecordFailed:
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
        except RecordFailed as failure:
            self._sound_at = -math.inf
            if failure.lost:
                self._owed = [*self._unsynced, *self._owed]
                self._unsynced = []
            raise
