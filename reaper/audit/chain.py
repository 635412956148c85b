"""A file up to the end that it has now, so that a line in the making does not look torn."""

import gzip
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Final, Protocol, Self

from reaper.audit.events import PREV
from reaper.audit.reader import LONGEST_LINE, is_packed, opened, parsed
from reaper.audit.rotation import locked

_END: Final = b"}\n"


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Self: ...


class Chain:
    """Follows the lines in their order, and knows the digest that the next one has to carry."""

    def __init__(self, digest: _Digest | None = None, *, loose: bool = False) -> None:
        self._digest = digest
        self.ends_loose = loose
        """Whether something stands behind the last whole line."""

    @property
    def head(self) -> str | None:
        """The digest for the next line; nothing where nothing stands before it."""
        return self._digest.hexdigest() if self._digest else None

    def whole(self, line: bytes) -> None:
        """A whole line, without its end: from here on nothing before it is needed."""
        self._digest = sha256(line)
        self.ends_loose = False

    def loose(self, line: bytes) -> None:
        """What is no whole line, without its end; it may be several, with the ends between."""
        self.more(b"\n" + line if self._digest else line)

    def more(self, piece: bytes) -> None:
        """The next piece of what is too long to be held at once."""
        self._digest = self._digest or sha256()
        self._digest.update(piece)
        self.ends_loose = True

    def copy(self) -> "Chain":
        """Another that goes on from here."""
        return Chain(self._digest.copy() if self._digest else None, loose=self.ends_loose)

    def carry_on(self, lines: Iterable[bytes]) -> list[bytes]:
        """These lines of the pen, each with the digest of the one before it."""
        linked = []
        for line in lines:
            linked.append(linked_to(self.head, line))
            self.whole(linked[-1].removesuffix(b"\n"))
        return linked


def linked_to(head: str | None, line: bytes) -> bytes:
    """A line of the pen, with the digest of the one before it as its last field."""
    digest = "null" if head is None else f'"{head}"'
    return line.removesuffix(_END) + f', "{PREV}": {digest}'.encode() + _END


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line as it stands there."""

    number: int
    data: bytes
    """Without its end; nothing when it is too long to be held."""
    ended: bool
    """Whether its end stands there too."""
    fields: Mapping[str, object] | None
    """What it says, when it is a whole line of a record."""
    why: str = ""
    """Otherwise why not."""


class Damaged(Exception):
    """A compressed file cannot be read on from here."""


class Readable(Protocol):
    """What can be read line by line."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, or so much of it."""


def walk(stream: Readable, chain: Chain) -> Iterator[Line]:
    """Each line; one that is not whole is added to the chain when the next is asked for. Raises Damaged."""
    number = 0
    while data := _next(stream, LONGEST_LINE):
        number += 1
        if len(data) == LONGEST_LINE and not data.endswith(b"\n"):
            ended = _follow_endless(data, stream, chain)
            why = f"longer than {LONGEST_LINE} bytes"
            yield Line(number=number, data=b"", ended=ended, fields=None, why=why)
            continue
        line, ended = data.removesuffix(b"\n"), data.endswith(b"\n")
        fields = parsed(line)
        if isinstance(fields, str):
            yield Line(number=number, data=line, ended=ended, fields=None, why=fields)
            chain.loose(line)
        else:
            yield Line(number=number, data=line, ended=ended, fields=fields)


def _follow_endless(piece: bytes, stream: Readable, chain: Chain) -> bool:
    chain.loose(b"")
    while piece and not piece.endswith(b"\n"):
        chain.more(piece)
        piece = _next(stream, LONGEST_LINE)
    chain.more(piece.removesuffix(b"\n"))
    return piece.endswith(b"\n")


def _next(stream: Readable, limit: int) -> bytes:
    try:
        return stream.readline(limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"the compressed file is damaged from here on: {error}"
        raise Damaged(message) from error


_PIECE: Final = 64 * 1024


def chain_at_end(fd: int, size: int, *, before: Callable[[], Chain]) -> Chain:
    """The chain behind all bytes of an open file; `before` is asked when no whole line stands in it."""
    return _chain_within(fd, size) or _behind(before(), fd, 0, _end(fd, size))


def chain_of_copies(copies: list[Path]) -> Chain:
    """The chain behind the last of these files, the oldest first; raises OSError when it cannot be read."""
    loose, chain = list[Path](), None
    # None before the last whole line is opened: there may be a thousand, and each takes a while.
    for copy in reversed(copies):
        chain = _chain_behind(copy, None)
        if chain:
            break
        loose.append(copy)
    for copy in reversed(loose):
        chain = _chain_behind(copy, chain or Chain())
    return chain or Chain()


def _chain_behind(copy: Path, before: Chain | None) -> Chain | None:
    """The chain behind a file; nothing when that is not known and no whole line stands in it."""
    # Locked, for another reaper may not have seen yet that it was renamed.
    with copy.open("rb") as file, locked(file.fileno()):
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return before
        if not is_packed(file):
            chain = _chain_within(file.fileno(), size)
            return chain or (before and _behind(before, file.fileno(), 0, _end(file.fileno(), size)))
    chain, found = before or Chain(), before is not None
    with opened(copy) as stream:
        for line in walk(stream, chain):
            if line.fields is not None:
                chain.whole(line.data)
                found = True
    return chain if found else None


def _chain_within(fd: int, size: int) -> Chain | None:
    """The chain behind all bytes of an open file; nothing when no whole line stands in it."""
    end = _end(fd, size)
    for start, stop in _lines_backwards(fd, end):
        line = os.pread(fd, stop - start, start) if stop - start < LONGEST_LINE else b""
        if isinstance(parsed(line), dict):
            chain = Chain()
            chain.whole(line)
            return _behind(chain, fd, stop + 1, end) if stop < end else chain
    return None


def _end(fd: int, size: int) -> int:
    """Where the last line stops."""
    return size - 1 if os.pread(fd, 1, size - 1) == b"\n" else size


def _lines_backwards(fd: int, end: int) -> Iterator[tuple[int, int]]:
    """Where each line begins and stops, the last first."""
    stop, at = end, end
    while at > 0:
        length = min(_PIECE, at)
        at -= length
        piece = os.pread(fd, length, at)
        found = piece.rfind(b"\n")
        while found >= 0:
            yield at + found + 1, stop
            stop = at + found
            found = piece.rfind(b"\n", 0, found)
    yield 0, stop


def _behind(chain: Chain, fd: int, start: int, end: int) -> Chain:
    """Add what stands between two places to a chain."""
    chain.loose(b"")
    while start < end:
        piece = os.pread(fd, min(_PIECE, end - start), start)
        if not piece:
            break
        chain.more(piece)
        start += len(piece)
    return chain


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
