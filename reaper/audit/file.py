"""The record as a file, which others write too, rotate, truncate and fill the disk of."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reaper.audit.chain import Chain, Damaged, chain_at_end, chain_of_copies
from reaper.audit.events import OPENED, TORN, TRUNCATED
from reaper.audit.rotation import locked, rotated_copies
from reaper.audit.sinks import AuditLogFailed, Finding, NotReady


class Predecessor:
    """The file that was left last, in this life, or else the newest rotated copy beside the path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: os.stat_result | None = None
        self._chain = Chain()
        self.trouble: str | None = None
        """Why the chain had to begin anew, when it had to."""

    def leave(self, status: os.stat_result, chain: Chain) -> None:
        """Remember the file that is let go of, and the chain up to its end."""
        self._left, self._chain = status, chain

    def chain(self) -> Chain:
        """The chain up to the beginning of the file at the path."""
        self.trouble = None
        try:
            copies = rotated_copies(self._path)
            if self._left is not None and not (copies and _is_later(copies[-1].stat(), self._left)):
                return self._chain.copy()
            return chain_of_copies(copies)
        except BlockingIOError:
            raise  # somebody keeps it locked: that is a matter of time
        except (OSError, Damaged) as error:
            why = getattr(error, "strerror", None) or error
            self.trouble = f"the chain begins anew, for what was rotated cannot be read: {why}"
            return self._chain.copy()


def _is_later(copy: os.stat_result, left: os.stat_result) -> bool:
    """Whether another reaper had begun, and somebody rotated, one more since we left ours."""
    return not os.path.samestat(copy, left) and copy.st_mtime_ns > left.st_mtime_ns


_MOST_ROTATIONS: Final = 100
"""So often the path is looked at again, at once: where files have no lasting numbers it would be forever."""


class FileSink:
    """A file that is only ever appended to, a batch of whole lines with one write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._closed = False
        self._unsynced = False
        self._predecessor = Predecessor(path)
        self._known = _Known()
        self._findings: list[Finding] = []

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def head(self) -> str | None:
        """The digest of the last line that we know of."""
        return self._known.chain.head

    def ready(self) -> Sequence[Finding]:
        """Open it if need be; tell that it was opened, that its last line is torn, that it was truncated."""
        with self._failing(), self._alone() as fd:
            size = os.fstat(fd).st_size
            if size < self._known.size:
                was = self._known.size
                detail = f"from {was} to {size} bytes by somebody else: rotate by renaming instead"
                self._findings.append(Finding(TRUNCATED, detail))
            self._catch_up(fd)
            found, self._findings = self._findings, []
            if self._known.torn:
                found.append(Finding(TORN, f"the last line is torn at byte {size}"))
            elif self._known.chain.ends_loose:
                where = f"before byte {size}" if size else "at the end of what was rotated"
                found.append(Finding(TORN, f"what stands {where} is no whole line"))
            return found

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Append the lines with one write, and make them and all before them last if they must."""
        with self._failing():
            if lines:
                with self._alone_as_ready() as fd:
                    self._append(fd, lines)
            if durable:
                self._sync()

    def reopen(self) -> None:
        """Let go of the file; the next write opens the path anew."""
        with self._failing():
            self._let_go()

    def close(self) -> None:
        """Let go of the file for good."""
        self._closed = True
        self.reopen()

    def _append(self, fd: int, lines: Sequence[bytes]) -> None:
        known = self._known
        chain = known.chain.copy()
        data = b"".join(chain.carry_on(lines))
        # Ours or another writer's: a line that is appended to a torn one would be lost with it.
        if known.torn:
            data = b"\n" + data
        self._unsynced = True
        written = os.write(fd, data)
        if written != len(data):
            told = f"{written} of {len(data)} bytes were taken: the disk is full, or a limit is reached"
            raise OSError(errno.ENOSPC, told)
        size = known.size + written
        self._known = _Known(size=size, chain=chain, beginning=known.beginning or _beginning(fd))

    def _catch_up(self, fd: int) -> None:
        """Know the file up to its end, which others may have moved."""
        known, size = self._known, os.fstat(fd).st_size
        if size == known.size:
            return
        beginning = _beginning(fd)
        # What was cut off is missing from the file and not from our memory: the chain holds that against it.
        # It is another matter when somebody has begun the file anew.
        cut = size < known.size and known.beginning.startswith(beginning)
        chain = known.chain if cut else chain_at_end(fd, size, before=self._predecessor.chain)
        self._known = _Known(size=size, chain=chain, beginning=beginning, torn=_is_torn(fd, size))

    def _sync(self) -> None:
        if not self._unsynced or self._fd is None:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            # The kernel reports a failure once and forgets the data: asking again would be told a lie.
            self._unsynced = False
            raise self._failure(error, lost=True) from error
        self._unsynced = False

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Keep other reapers from the file at the path, which may be another one than a moment ago."""
        for _ in range(_MOST_ROTATIONS):
            if self._closed:
                raise OSError(errno.EBADF, "it was closed")
            fd = self._fd = self._open() if self._fd is None else self._fd
            with locked(fd):
                # Asked behind the lock: whoever has seen a rename reads the end of the old file behind it
                # too, and nothing may be added to that end any more.
                if not self._was_rotated(fd):
                    yield fd
                    return
            self._let_go()
        raise OSError(errno.ESTALE, "at every look there is another file at its path")

    @contextmanager
    def _alone_as_ready(self) -> Iterator[int]:
        """The same for the file that was made ready, as it was then but for whole lines of others."""
        fd = self._fd
        if fd is None:
            raise NotReady
        with locked(fd):
            if self._was_rotated(fd) or os.fstat(fd).st_size < self._known.size:
                raise NotReady
            told = self._known.torn
            self._catch_up(fd)
            if self._known.torn and not told:
                raise NotReady
            yield fd

    def _was_rotated(self, fd: int) -> bool:
        ours = os.fstat(fd)
        try:
            return not os.path.samestat(self._path.stat(), ours)
        except FileNotFoundError:
            return True

    def _open(self) -> int:
        # Readable as well, to see whether the last line is whole, and to go on from its digest.
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file")
        self._known, trouble = _Known(), None
        if status.st_size == 0:
            self._sync_folder()
            self._known = _Known(chain=self._predecessor.chain())
            trouble = self._predecessor.trouble
        self._findings = [Finding(OPENED, "; ".join(filter(None, (f"at {status.st_size} bytes", trouble))))]
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
        self._sync()
        with locked(self._fd):
            self._catch_up(self._fd)
        self._forget()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """After a failure the next write starts from a new descriptor and looks at the file again."""
        try:
            yield
        except OSError as error:
            self._forget()
            raise self._failure(error) from error
        except AuditLogFailed:
            self._forget()
            raise

    def _forget(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                self._predecessor.leave(os.fstat(fd), self._known.chain)
                os.close(fd)

    def _failure(self, error: OSError, *, lost: bool = False) -> AuditLogFailed:
        folder = self._path.parent
        if error.errno == errno.ENOENT and not folder.exists():
            return AuditLogFailed(where=self.name, why=f"its folder {folder} does not exist, create it")
        return AuditLogFailed(where=self.name, why=error.strerror or str(error), lost=lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What stands in the file, as far as we have written or seen it."""

    size: int = 0
    chain: Chain = field(default_factory=Chain)
    beginning: bytes = b""
    torn: bool = False


def _is_torn(fd: int, size: int) -> bool:
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _beginning(fd: int) -> bytes:
    """Enough of the first line to tell a file from its successor: when, and by whom, it was begun."""
    return os.pread(fd, 128, 0)
