"""The folder of history files: who they belong to, in which order, and how much of it there may be."""

import errno
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from reaper.history.aliases import SECRET_BYTES
from reaper.history.format import SUFFIX
from reaper.policy.time import SECOND, Instant, Span, as_datetime, from_datetime

_NAME: Final = re.compile(
    rf"history-(?P<server>.+)-(?P<stamp>\d{{8}}T\d{{6}}Z)(?:-(?P<again>\d+))?{re.escape(SUFFIX)}", re.ASCII
)
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.]+")
_KEY_FILE: Final = ".anonymous"
_END_OF_STAMPS: Final = from_datetime(datetime(9999, 1, 1, tzinfo=UTC))
_MOST_TRIES: Final = 1_000
_MODE: Final = 0o600
_ANEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept."""

    most_bytes: int
    keep_for: Span

    @property
    def of_a_file(self) -> int:
        """So long a file may become, for whole files are deleted."""
        return max(self.most_bytes // 16, 64 * 1024)


class HistoryFolder:
    """Makes files, and deletes the oldest."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self.path = path
        self.bounds = bounds

    def ready(self) -> None:
        """Make the folder if need be; raises OSError when files cannot be made there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "this user may not write there", str(self.path))

    def create(self, server: str, at: Instant) -> tuple[Path, int]:
        """A new file of a server, open for writing; raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = f"history-{_safe(server)}-{_moment(at):{_STAMP}}"
        for again in ("", *(f"-{number}" for number in range(1, _MOST_TRIES))):
            path = self.path / f"{stem}{again}{SUFFIX}"
            try:
                return path, os.open(path, _ANEW, _MODE)
            except FileExistsError:
                continue
        raise FileExistsError(errno.EEXIST, f"there are {_MOST_TRIES} files of this second", stem)

    def tidy(self, now: datetime, *, keep: Path | None = None) -> list[Path]:
        """Delete whole files, the oldest first, until all is within bounds; each server's newest stays.

        And so does the one that is being written: after the server's clock was set back it is not the newest.
        """
        files = [(path, path.stat().st_size) for path in history_files(self.path) if path.is_file()]
        newest = {*{_server_of(path): path for path, _ in files}.values(), keep}
        total = sum(size for _, size in files)
        too_old = f"{now - timedelta(seconds=self.bounds.keep_for / SECOND):{_STAMP}}"
        gone = []
        for path, size in files:
            if path in newest or (total <= self.bounds.most_bytes and _stamp_of(path) >= too_old):
                continue
            path.unlink(missing_ok=True)
            total -= size
            gone.append(path)
        return gone

    def secret(self) -> bytes:
        """What aliases are made with, the same for all files here; raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / _KEY_FILE
        try:
            fd = os.open(path, _ANEW, _MODE)
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
    """The files of a folder by their beginning, the oldest first; a file is itself. Raises OSError."""
    if path.is_file():
        return [path]
    return _in_order(each for each in path.iterdir() if _NAME.fullmatch(each.name) and each.is_file())


def _in_order(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (_stamp_of(path), _again(path), path.name))


def _stamp_of(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return found["stamp"] if found else ""


def _again(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found["again"] or 0) if found else 0


def _server_of(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return found["server"] if found else path.name


def _safe(server: str) -> str:
    """A name for a file; where letters had to go, with a digest of what it was."""
    safe = _UNSAFE.sub("_", server)[:60].lstrip(".")
    return safe if safe == server else f"{safe}_{sha256(server.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _moment(at: Instant) -> datetime:
    """As a name can tell it; a clock that is so far off is told as the beginning of all clocks."""
    return as_datetime(at if 0 <= at < _END_OF_STAMPS else Instant(0))
