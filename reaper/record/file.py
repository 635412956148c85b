"""The record as a file, which others rotate, truncate and fill the disk of."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from reaper.record.events import OPENED, TORN, TRUNCATED
from reaper.record.writer import Finding, RecordFailed


class FileSink:
    """A file that is only ever appended to, a batch of whole lines with one write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._closed = False
        self._unsynced = False
        self._size = 0
        self._findings: list[Finding] = []

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def ready(self) -> Sequence[Finding]:
        """Open it if need be; tell that it was opened, that its last line is torn, that it was truncated."""
        with self._failing():
            fd = self._current()
            found, self._findings = self._findings, []
            with _alone(fd):
                size = os.fstat(fd).st_size
                torn = _is_torn(fd, size)
            if size < self._size:
                detail = f"from {self._size} to {size} bytes by somebody else: rotate by renaming instead"
                found.append(Finding(TRUNCATED, detail))
            self._size = size
            if torn:
                found.append(Finding(TORN, f"the last line is torn at byte {size}"))
            return found

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Append the lines with one write, and make them and all before them last if they must."""
        with self._failing():
            fd = self._current()
            if lines:
                with _alone(fd):
                    self._append(fd, b"".join(lines))
            if durable:
                self._sync(fd)

    def reopen(self) -> None:
        """Let go of the file; the next write opens the path anew."""
        with self._failing():
            self._let_go()

    def close(self) -> None:
        """Let go of the file for good."""
        self._closed = True
        self.reopen()

    def _append(self, fd: int, data: bytes) -> None:
        size = os.fstat(fd).st_size
        # Ours or another writer's: a line that is appended to a torn one would be lost with it.
        if _is_torn(fd, size):
            data = b"\n" + data
        self._unsynced = True
        written = os.write(fd, data)
        self._size = size + written
        if written != len(data):
            told = f"{written} of {len(data)} bytes were taken: the disk is full, or a limit is reached"
            raise OSError(errno.ENOSPC, told)

    def _sync(self, fd: int) -> None:
        if not self._unsynced:
            return
        try:
            os.fdatasync(fd)
        except OSError as error:
            # The kernel reports a failure once and forgets the data: asking again would be told a lie.
            self._unsynced = False
            raise self._failure(error, lost=True) from error
        self._unsynced = False

    def _current(self) -> int:
        """The descriptor of the file at the path, which may be another one than a moment ago."""
        if self._closed:
            raise OSError(errno.EBADF, "it was closed")
        if self._fd is not None and self._was_rotated(self._fd):
            self._let_go()
        if self._fd is None:
            self._fd = self._open()
        return self._fd

    def _was_rotated(self, fd: int) -> bool:
        ours = os.fstat(fd)
        try:
            return not os.path.samestat(self._path.stat(), ours)
        except FileNotFoundError:
            return True

    def _open(self) -> int:
        # Readable as well, to see whether the last line is whole.
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file")
        self._size = status.st_size
        if status.st_size == 0:
            self._sync_folder()
        self._findings = [Finding(OPENED, f"at {status.st_size} bytes")]
        return fd

    def _sync_folder(self) -> None:
        # Without this a crash of the host could forget the new file, with all that was made to last in it.
        with suppress(PermissionError):
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _let_go(self) -> None:
        if self._fd is None:
            return
        self._sync(self._fd)
        fd, self._fd = self._fd, None
        os.close(fd)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """After a failure the next write starts from a new descriptor and looks at the file again."""
        try:
            yield
        except OSError as error:
            self._forget()
            raise self._failure(error) from error
        except RecordFailed:
            self._forget()
            raise

    def _forget(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)

    def _failure(self, error: OSError, *, lost: bool = False) -> RecordFailed:
        folder = self._path.parent
        if error.errno == errno.ENOENT and not folder.exists():
            return RecordFailed(where=self.name, why=f"its folder {folder} does not exist, create it")
        return RecordFailed(where=self.name, why=error.strerror or str(error), lost=lost)


_PATIENCE: Final = 1_000
"""Milliseconds, many thousand times as long as a write takes."""


@contextmanager
def _alone(fd: int) -> Iterator[None]:
    """Keep other reapers from writing.

    One append never tears another, but it is seen growing: without the lock a line in the making looks torn.
    Whoever holds the lock too long must not hang us: that is a record that cannot be written.
    """
    for _ in range(_PATIENCE):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.001)
    else:
        raise BlockingIOError(errno.EAGAIN, "another process keeps it locked")
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _is_torn(fd: int, size: int) -> bool:
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"
