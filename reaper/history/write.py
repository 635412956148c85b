"""Writes the history of one server: a folder of files, each snapshot readable as soon as it is written."""

import errno
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from gzip import GzipFile
from hashlib import sha256
from pathlib import Path
from typing import Final

from reaper import __version__
from reaper.history.aliases import SECRET_BYTES, Aliases
from reaper.history.encode import HistoryEncoder
from reaper.insight.recorded import CycleMark
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp, as_datetime, from_datetime

_NAME: Final = re.compile(
    r"history-(?P<server>.+)-(?P<stamp>\d{8}T\d{6}Z)(?:-(?P<number>\d+))?\.jsonl\.gz", re.ASCII
)
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.]+")
_KEY_FILE: Final = ".anonymous"
_END_OF_STAMPS: Final = from_datetime(datetime(9999, 1, 1, tzinfo=UTC))
_MAX_FILES_A_SECOND: Final = 1_000
_OWNER_ONLY: Final = 0o600
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLimits:
    """Limits of a folder of history files."""

    max_bytes: int
    keep_for: Duration

    @property
    def max_file(self) -> int:
        """Bytes of one file: files are deleted whole, so each is a small part of the folder."""
        return max(self.max_bytes // 16, 64 * 1024)


class HistoryFolder:
    """A folder of history files: creates files, deletes the oldest ones."""

    def __init__(self, path: Path, limits: HistoryLimits) -> None:
        self.path = path
        self.limits = limits

    def prepare(self) -> None:
        """Create the folder if it is missing. Raises OSError if files cannot be created there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "this user may not write there", str(self.path))

    def create(self, server: str, at: Timestamp) -> tuple[Path, int]:
        """Create a file for a server and open it. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A clock that is off by thousands of years gives a name as well.
        moment = as_datetime(at if 0 <= at < _END_OF_STAMPS else Timestamp(0))
        stem = f"history-{_file_name(server)}-{moment:{_STAMP}}"
        for number in ("", *(f"-{each}" for each in range(1, _MAX_FILES_A_SECOND))):
            path = self.path / f"{stem}{number}.jsonl.gz"
            with suppress(FileExistsError):
                return path, os.open(path, _CREATE, _OWNER_ONLY)
        raise FileExistsError(errno.EEXIST, f"there are {_MAX_FILES_A_SECOND} files of this second", stem)

    def delete_oldest(self, now: datetime, *, current: Path | None = None) -> None:
        """Delete files, the oldest first, until the folder is within its limits.

        The newest file of each server stays, and so does the current one, which is not the newest after the
        server's clock was set back. Raises OSError.
        """
        files = [(path, path.stat().st_size) for path in history_files(self.path)]
        newest = {*{_part(path, "server"): path for path, _ in files}.values(), current}
        total = sum(size for _, size in files)
        too_old = f"{now - timedelta(seconds=self.limits.keep_for / SECOND):{_STAMP}}"
        for path, size in files:
            too_many = total > self.limits.max_bytes
            if path not in newest and (too_many or _part(path, "stamp") < too_old):
                path.unlink(missing_ok=True)
                total -= size

    def secret(self) -> bytes:
        """Return the secret of the aliases, the same for all files here. Raises OSError."""
        path = self.path / _KEY_FILE
        try:
            fd = os.open(path, _CREATE, _OWNER_ONLY)
        except FileExistsError:
            found = path.read_bytes()
            if len(found) != SECRET_BYTES:
                message = f"it has {len(found)} bytes and should have {SECRET_BYTES}; remove it"
                raise OSError(errno.EINVAL, message, str(path)) from None
            return found
        with os.fdopen(fd, "wb") as file:
            file.write(made := secrets.token_bytes(SECRET_BYTES))
        return made


def history_files(path: Path) -> list[Path]:
    """Return the files of a folder, the oldest first; of a file, itself. Raises OSError."""
    if path.is_file():
        return [path]
    found = [each for each in path.iterdir() if _NAME.fullmatch(each.name) and each.is_file()]
    return sorted(found, key=lambda each: (_part(each, "stamp"), int(_part(each, "number") or 0), each.name))


def _part(path: Path, name: str) -> str:
    found = _NAME.fullmatch(path.name)
    return (found[name] or "") if found else ""


def _file_name(server: str) -> str:
    """Return a name for files; a digest keeps apart servers of which characters had to be replaced."""
    safe = _UNSAFE.sub("_", server)[:60].lstrip(".")
    return safe if safe == server else f"{safe}_{sha256(server.encode('utf-8', 'replace')).hexdigest()[:8]}"


_MAX_AGE: Final = Duration(3_600 * SECOND)
_MAX_UNPACKED: Final = 1024 * 1024 * 1024


class HistoryFailed(Exception):
    """A snapshot could not be written; the next one begins a new file."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"the history {path} cannot be written: {error.strerror or error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """The folder of the history files, and how often all sessions are recorded."""

    folder: HistoryFolder
    every: Duration
    aliases: Aliases | None = None


class HistoryWriter:
    """Writes the history of one server into a folder."""

    def __init__(self, options: HistoryOptions, server: str) -> None:
        self._options = options
        self._server = server if options.aliases is None else options.aliases.server(server)
        self._file: _OpenFile | None = None

    def write(self, snapshot: Snapshot, cycles: Iterable[CycleMark] = ()) -> None:
        """Write all sessions, and the cycles since the snapshot before. Raises HistoryFailed."""
        counted_from = snapshot.sessions[0].counted_from if snapshot.sessions else None
        max_bytes = self._options.folder.limits.max_file
        if self._file and self._file.is_over(snapshot.at, counted_from, max_bytes):
            self.close()
        file = self._file or self._create(snapshot.at, counted_from)
        self._append(file, file.encoder.snapshot(snapshot, cycles))

    def write_partial(self, at: Timestamp, sessions: Sequence[Session]) -> None:
        """Write a few sessions between two snapshots; before the first one they are left out."""
        if self._file and sessions:
            self._append(self._file, self._file.encoder.partial(at, sessions))

    def close(self) -> None:
        """End the file. Raises HistoryFailed."""
        file, self._file = self._file, None
        if file:
            try:
                file.close()
            except OSError as error:
                raise HistoryFailed(file.path, error) from error

    def _create(self, at: Timestamp, counted_from: Timestamp | None) -> "_OpenFile":
        folder, every = self._options.folder, self._options.every
        try:
            path, fd = folder.create(self._server, at)
            folder.delete_oldest(datetime.now(UTC), current=path)
        except OSError as error:
            raise HistoryFailed(folder.path, error) from error
        encoder = HistoryEncoder(self._options.aliases)
        file = self._file = _OpenFile(path, fd, encoder, at, counted_from)
        head = encoder.head(self._server, at, every=every, version=__version__, counted_from=counted_from)
        self._append(file, head)
        return file

    def _append(self, file: "_OpenFile", line: bytes) -> None:
        try:
            file.append(line)
        except OSError as error:
            # The last line may be torn, so nothing may follow it. A file without a snapshot is of no use.
            self._file = None
            with suppress(OSError):
                file.close()
            if file.lines <= 1:
                file.path.unlink(missing_ok=True)
            raise HistoryFailed(file.path, error) from error


class _OpenFile:
    """A file that is being written."""

    def __init__(
        self, path: Path, fd: int, encoder: HistoryEncoder, began: Timestamp, counted_from: Timestamp | None
    ) -> None:
        self.path = path
        self.encoder = encoder
        self.lines = 0
        self._raw = os.fdopen(fd, "wb")
        self._gzip = GzipFile(fileobj=self._raw, mode="wb", compresslevel=6)
        self._began = began
        self._counted_from = counted_from

    def append(self, line: bytes) -> None:
        """Write a line so that it can be unpacked at once. Raises OSError."""
        self._gzip.write(line)
        self._gzip.flush(zlib.Z_SYNC_FLUSH)
        self.lines += 1

    def close(self) -> None:
        """Close the file, even if its end cannot be written. Raises OSError."""
        with self._raw:
            self._gzip.close()

    def is_over(self, at: Timestamp, counted_from: Timestamp | None, max_bytes: int) -> bool:
        """Return True if another file should follow."""
        return (
            self._raw.tell() >= max_bytes
            or self._gzip.tell() >= _MAX_UNPACKED
            or not 0 <= at - self._began < _MAX_AGE
            or self._counted_from != counted_from  # the clock was set: one head cannot say both
        )
