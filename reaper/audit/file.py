"""The audit log as a file with one writer, while logrotate renames or truncates it and the disk fills up."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from reaper.audit.chain import Chain, chain_at_end, chain_of_copies
from reaper.audit.events import OPENED, TORN, TRUNCATED
from reaper.audit.reader import rotated_copies
from reaper.audit.sinks import AuditLogFailed, Notice

_MOST_ATTEMPTS: Final = 10
"""On a file system without lasting inode numbers, the path would lead to another file each time."""

_ONE_WRITER: Final = "one process per file; give `reaper once` beside `reaper run` another --audit-log FILE"


class FileSink:
    """An append-only file: each batch of lines is one write. The lock is held until the file is closed."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd: int | None = None
        self._closed = False
        self._unsynced = False
        self._size = 0
        self._chain = Chain()
        self._torn = False
        self._rotated_by_us = False
        """The chain in memory ends with the file before the one at the path."""

    @property
    def head(self) -> str | None:
        """The digest of the last line."""
        return self._chain.head

    def prepare(self) -> Sequence[Notice]:
        """Open the file if needed. Return that it was opened, is torn at its end, or was truncated."""
        with self._failing():
            if self._fd is not None and not self._is_at_path(self._fd):
                self._leave()
            if self._fd is None:
                return [self._open(), *self._torn_notice()]
            return self._check_size(self._fd)

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Append the lines with one write; sync them and all before them if they must be durable."""
        with self._failing():
            if lines:
                self._append(lines)
            if durable:
                self._sync()

    def reopen(self) -> None:
        """Close the file; the next write opens the path again."""
        with self._failing():
            self._leave()

    def close(self) -> None:
        """Close the file for good."""
        self._closed = True
        self.reopen()

    def _append(self, lines: Sequence[bytes]) -> None:
        if self._fd is None:
            raise OSError(errno.EBADF, "it is not open")
        chain = self._chain.copy()
        data = b"".join(chain.link(lines))
        # A line that is appended to a torn one would be lost with it.
        if self._torn:
            data = b"\n" + data
        self._unsynced = True
        written = os.write(self._fd, data)
        if written != len(data):
            why = f"{written} of {len(data)} bytes were taken: the disk is full, or a limit is reached"
            raise OSError(errno.ENOSPC, why)
        self._size, self._chain, self._torn = self._size + written, chain, False

    def _check_size(self, fd: int) -> list[Notice]:
        """What other programs did to the file since the last write."""
        size, was = os.fstat(fd).st_size, self._size
        if size == was:
            return []
        found = []
        if size < was:
            # The chain in memory is kept: it shows that lines are missing.
            why = f"from {was} to {size} bytes by another program: rotate by renaming instead"
            found.append(Notice(TRUNCATED, why))
        else:
            self._chain = chain_at_end(fd, size, before=self._chain.copy)
        self._size = size
        self._torn = _is_torn(fd, size)
        return [*found, *self._torn_notice()]

    def _torn_notice(self) -> list[Notice]:
        if self._torn:
            return [Notice(TORN, f"the last line is torn at byte {self._size}")]
        if self._chain.ends_torn:
            where = f"before byte {self._size}" if self._size else "at the end of the rotated file"
            return [Notice(TORN, f"there is no whole line {where}")]
        return []

    def _sync(self) -> None:
        if not self._unsynced or self._fd is None:
            return
        # The kernel reports a failure once and forgets the data: a second fdatasync would succeed wrongly.
        self._unsynced = False
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._failure(error, lost=True) from error

    def _open(self) -> Notice:
        if self._closed:
            raise OSError(errno.EBADF, "it was closed")
        for _ in range(_MOST_ATTEMPTS):
            # Readable as well: the digest of the last line is needed to continue the chain.
            fd = self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            _lock(fd)
            # The file may have been rotated between open and lock.
            if self._is_at_path(fd):
                return self._begin(fd)
            self._fd = None
            os.close(fd)
        raise OSError(errno.ESTALE, "there is another file at its path each time")

    def _begin(self, fd: int) -> Notice:
        """Continue the chain of what is in the file, or else of the file before it."""
        size, trouble = os.fstat(fd).st_size, None
        if size:
            self._chain = chain_at_end(fd, size, before=lambda: self._chain_before()[0])
        else:
            self._sync_folder()
            self._chain, trouble = self._chain_before()
        self._size, self._torn, self._rotated_by_us = size, _is_torn(fd, size), False
        return Notice(OPENED, "; ".join(filter(None, (f"at {size} bytes", trouble))))

    def _chain_before(self) -> tuple[Chain, str | None]:
        """The chain at the end of the previous file, and why it begins anew if it must."""
        try:
            copies = rotated_copies(self._path)
            for newest in copies[-1:]:
                # Another writer may not have noticed yet that its file was rotated, and still hold its lock.
                with newest.open("rb") as file:
                    _lock(file.fileno())
            if copies and not self._rotated_by_us:
                return chain_of_copies(copies), None
        except BlockingIOError:
            raise
        except OSError as error:
            why = f"the chain begins anew, because the rotated file cannot be read: {error.strerror or error}"
            return self._chain.copy(), why
        return self._chain.copy(), None

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _sync_folder(self) -> None:
        # Otherwise a crash of the host could lose the new file with all that was synced in it.
        with suppress(PermissionError):
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _leave(self) -> None:
        """Sync and close the file; the chain continues in the next one."""
        self._sync()
        self._rotated_by_us = self._fd is not None
        self._forget()

    def _forget(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """After a failure, the next write opens the file again, and reads the end of the chain from it."""
        try:
            yield
        except (OSError, AuditLogFailed) as error:
            self._rotated_by_us = False
            self._forget()
            if isinstance(error, AuditLogFailed):
                raise
            raise self._failure(error) from error

    def _failure(self, error: OSError, *, lost: bool = False) -> AuditLogFailed:
        folder = self._path.parent
        if error.errno == errno.ENOENT and not folder.exists():
            return AuditLogFailed(where=self.name, why=f"its folder {folder} does not exist, create it")
        hint = _ONE_WRITER if isinstance(error, BlockingIOError) else ""
        return AuditLogFailed(where=self.name, why=error.strerror or str(error), lost=lost, hint=hint)


def _is_torn(fd: int, size: int) -> bool:
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _lock(fd: int) -> None:
    """Become the only writer of the file, until the descriptor is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, f"{_lock_holder(fd)} writes to it already") from None


def _lock_holder(fd: int) -> str:
    """The process that holds the lock, if the kernel lists it."""
    status = os.fstat(fd)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # `1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF`; pid 0 or -1 belongs to another container.
            fields = line.split()
            if "FLOCK" in fields and file in fields and fields[4].isdigit() and fields[4] != "0":
                return f"process {fields[4]}"
    return "another process"
