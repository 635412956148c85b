"""Where the lines go, and the error that says that they did not get there.

Not a logging handler: those swallow a full disk. A sink either has written every byte, or says so.
"""

import errno
import os
import select
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from reaper.record.chain import Chain
from reaper.record.events import A_STREAM, OPENED, TORN


class RecordFailed(Exception):
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
        """Take every byte or raise RecordFailed; an empty durable batch makes last what was taken before.

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
            raise RecordFailed(where=self.name, why=error.strerror or str(error)) from error
