"""A file up to the end that it has now, so that a line in the making does not look torn."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from reaper.record.lock import locked
from reaper.record.reader import is_packed, opened
from reaper.record.walk import Readable


class _UpTo:
    """So many bytes of a file."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._left = size

    def readline(self, limit: int, /) -> bytes:
        """The next line, or so much of it."""
        line = self._file.readline(min(limit, self._left))
        self._left -= len(line)
        return line


@contextmanager
def opened_as_it_stands(path: Path) -> Iterator[Readable]:
    """What was written by now, plain or gzipped; raises OSError."""
    with path.open("rb") as file:
        if is_packed(file):
            with opened(path) as stream:
                yield stream
        elif stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield _UpTo(file, _settled_size(file))
        else:
            yield file


def _settled_size(file: BufferedReader) -> int:
    with suppress(BlockingIOError), locked(file.fileno()):
        return os.fstat(file.fileno()).st_size
    return os.fstat(file.fileno()).st_size
