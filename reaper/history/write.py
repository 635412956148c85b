"""Writes the history of one server: one file after the other, each look whole as soon as it is taken."""

import errno
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from reaper.history.aliases import Aliases
from reaper.history.encode import Encoder
from reaper.history.folder import HistoryFolder
from reaper.history.format import GZIP
from reaper.policy.seen import Mark
from reaper.policy.session import Facts, Session, Snapshot
from reaper.policy.time import SECOND, Instant, Span

_LEVEL: Final = 6
_LONGEST: Final = Span(3_600 * SECOND)
"""So long a file lasts: whole files are deleted, and sent to somebody."""
_MOST_UNPACKED: Final = 1024 * 1024 * 1024


class HistoryFailed(Exception):
    """A look could not be written; the next one begins a new file."""


class HistoryWriter:
    """Keeps the history of one server in a folder of files."""

    def __init__(
        self, folder: HistoryFolder, *, server: str, every: Span, version: str, aliases: Aliases | None = None
    ) -> None:
        self._folder = folder
        self._server = server
        self._every = every
        self._version = version
        self._aliases = aliases
        self._file: _File | None = None

    @property
    def path(self) -> Path | None:
        """The file that is being written."""
        return self._file.path if self._file else None

    def reading(self, snapshot: Snapshot, looks: Iterable[Mark] = ()) -> None:
        """Everybody, at a moment, and when cycles have looked since the last one; raises HistoryFailed."""
        if self._file and self._is_over(self._file, snapshot.at):
            self.close()
        file = self._file or self._begin(snapshot.at)
        self._write(file, file.encoder.reading(snapshot, looks))

    def sighting(self, at: Instant, sessions: Sequence[Session], facts: Facts) -> None:
        """A few sessions between two readings; before the first there is nothing to add to."""
        if self._file and sessions:
            self._write(self._file, self._file.encoder.sighting(at, sessions, facts))

    def close(self) -> None:
        """End the file as it should end."""
        file, self._file = self._file, None
        if file:
            try:
                file.end()
            except OSError as error:
                raise self._failed(file.path, error) from error

    def _is_over(self, file: "_File", at: Instant) -> bool:
        return (
            file.packed >= self._folder.bounds.of_a_file
            or file.unpacked >= _MOST_UNPACKED
            or not 0 <= at - file.began < _LONGEST
            or file.encoder.is_full
        )

    def _begin(self, at: Instant) -> "_File":
        name = self._server if self._aliases is None else self._aliases.server(self._server)
        try:
            path, fd = self._folder.create(name, at)
            self._folder.tidy(datetime.now(UTC), keep=path)
        except OSError as error:
            raise self._failed(self._folder.path, error) from error
        encoder = Encoder(
            server=self._server, every=self._every, version=self._version, aliases=self._aliases
        )
        file = self._file = _File(path, fd, encoder, at)
        self._write(file, encoder.head(at))
        return file

    def _write(self, file: "_File", line: bytes) -> None:
        try:
            file.write(line)
        except OSError as error:
            # What stands there is torn; nothing may follow it. Without one whole look it is of no use.
            self._file = None
            file.abandon(keep=file.looks > 0)
            raise self._failed(file.path, error) from error

    def _failed(self, path: Path, error: OSError) -> HistoryFailed:
        return HistoryFailed(f"the history {path} cannot be written: {error.strerror or error}")


class _File:
    """A file that is being written; every line can be unpacked as soon as it stands there."""

    def __init__(self, path: Path, fd: int, encoder: Encoder, began: Instant) -> None:
        self.path = path
        self.encoder = encoder
        self.began = began
        self.looks = -1
        """The head is none."""
        self.packed = 0
        self.unpacked = 0
        self._fd = fd
        self._pack = zlib.compressobj(_LEVEL, zlib.DEFLATED, GZIP)

    def write(self, line: bytes) -> None:
        self.unpacked += len(line)
        self._put(self._pack.compress(line) + self._pack.flush(zlib.Z_SYNC_FLUSH))
        self.looks += 1

    def end(self) -> None:
        try:
            self._put(self._pack.flush())
        finally:
            os.close(self._fd)

    def abandon(self, *, keep: bool) -> None:
        os.close(self._fd)
        if not keep:
            with suppress(OSError):
                self.path.unlink()

    def _put(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        self.packed += written
        if written != len(data):
            told = f"{written} of {len(data)} bytes were taken: the disk is full, or a limit is reached"
            raise OSError(errno.ENOSPC, told)
