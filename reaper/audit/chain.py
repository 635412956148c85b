"""The hash chain: each line carries the SHA-256 of the line before it.

What is no whole entry, such as a torn line, is hashed together with the entry before it.
"""

import gzip
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Final, Protocol, Self

from reaper.audit.events import PREV
from reaper.audit.reader import LONGEST_LINE, UNPACK_ERRORS, is_gzipped, opened, parse_line

_END: Final = b"}\n"
_BLOCK: Final = 64 * 1024
_LOOKS_AT_THE_END: Final = 20


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Self: ...


class Chain:
    """Follows lines in their order, and has the digest that the next one must carry."""

    def __init__(self, digest: _Hash | None = None, *, ends_torn: bool = False) -> None:
        self._digest = digest
        self.ends_torn = ends_torn
        """Something that is no whole entry follows the last entry."""

    @property
    def head(self) -> str | None:
        """The digest for the next line; None where nothing is before it."""
        return self._digest.hexdigest() if self._digest else None

    def add_entry(self, line: bytes) -> None:
        """Add a whole entry, without its newline. Nothing before it is needed any more."""
        self._digest = sha256(line)
        self.ends_torn = False

    def add_fragment(self, line: bytes) -> None:
        """Add something that is no entry, without its last newline; it may be several lines."""
        self.extend_fragment(b"\n" + line if self._digest else line)

    def extend_fragment(self, block: bytes) -> None:
        """Add the next block of a fragment that is too long for memory."""
        self._digest = self._digest or sha256()
        self._digest.update(block)
        self.ends_torn = True

    def copy(self) -> "Chain":
        """A chain that continues from here on its own."""
        return Chain(self._digest.copy() if self._digest else None, ends_torn=self.ends_torn)

    def link(self, lines: Iterable[bytes]) -> list[bytes]:
        """Encoded events, each with the digest of the one before it as its last field."""
        linked = []
        for line in lines:
            digest = "null" if self.head is None else f'"{self.head}"'
            linked.append(line.removesuffix(_END) + f', "{PREV}": {digest}'.encode() + _END)
            self.add_entry(linked[-1].removesuffix(b"\n"))
        return linked


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLine:
    """One line as it is in the file."""

    number: int
    data: bytes
    """Without its newline; empty if it is too long for memory."""
    fields: Mapping[str, object] | None
    """Its fields, if it is a whole entry."""
    why: str = ""
    """Otherwise why it is none."""


class DamagedGzip(Exception):
    """A compressed file cannot be read beyond this line."""


class LineSource(Protocol):
    """A stream that is read line by line."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, or its first bytes."""


def iterate_lines(stream: LineSource, chain: Chain) -> Iterator[RawLine]:
    """Each line; one that is no entry is added to the chain by this function. Raises DamagedGzip."""
    number = 0
    while data := _read_line(stream):
        number += 1
        if len(data) == LONGEST_LINE and not data.endswith(b"\n"):
            _skip_long_line(data, stream, chain)
            yield RawLine(number=number, data=b"", fields=None, why=f"longer than {LONGEST_LINE} bytes")
            continue
        line = data.removesuffix(b"\n")
        fields = parse_line(line)
        if isinstance(fields, str):
            yield RawLine(number=number, data=line, fields=None, why=fields)
            chain.add_fragment(line)
        else:
            yield RawLine(number=number, data=line, fields=fields)


def _skip_long_line(block: bytes, stream: LineSource, chain: Chain) -> None:
    chain.add_fragment(b"")
    while block and not block.endswith(b"\n"):
        chain.extend_fragment(block)
        block = _read_line(stream)
    chain.extend_fragment(block.removesuffix(b"\n"))


def _read_line(stream: LineSource) -> bytes:
    try:
        return stream.readline(LONGEST_LINE)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"the compressed file is damaged from here on: {error}"
        raise DamagedGzip(message) from error


def chain_at_end(fd: int, size: int, *, before: Callable[[], Chain]) -> Chain:
    """The chain after the first `size` bytes of an open file; `before` is called if they hold no entry."""
    return _chain_within(fd, size) or _add_bytes(before(), fd, 0, _end(fd, size))


def chain_of_copies(copies: list[Path]) -> Chain:
    """The chain after the last of these files, the oldest first; raises OSError and DamagedGzip."""
    without_entry, chain = list[Path](), None
    # Reads backwards, and nothing before the last entry: there may be a thousand copies.
    for copy in reversed(copies):
        chain = _chain_after(copy, None)
        if chain:
            break
        without_entry.append(copy)
    for copy in reversed(without_entry):
        chain = _chain_after(copy, chain or Chain())
    return chain or Chain()


def _chain_after(copy: Path, before: Chain | None) -> Chain | None:
    """The chain after a file; None if it holds no entry and the chain before it is unknown."""
    with copy.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return before
        if not is_gzipped(file):
            chain = _chain_within(file.fileno(), size)
            return chain or (before and _add_bytes(before, file.fileno(), 0, _end(file.fileno(), size)))
    chain, found = before or Chain(), before is not None
    try:
        with opened(copy) as stream:
            for line in iterate_lines(stream, chain):
                if line.fields is not None:
                    chain.add_entry(line.data)
                    found = True
    except UNPACK_ERRORS as error:
        raise DamagedGzip(str(error)) from error
    return chain if found else None


def _chain_within(fd: int, size: int) -> Chain | None:
    """The chain after the first bytes of an open file; None if they hold no entry."""
    end = _end(fd, size)
    for start, stop in _lines_backwards(fd, end):
        line = os.pread(fd, stop - start, start) if stop - start < LONGEST_LINE else b""
        if isinstance(parse_line(line), dict):
            chain = Chain()
            chain.add_entry(line)
            return _add_bytes(chain, fd, stop + 1, end) if stop < end else chain
    return None


def _end(fd: int, size: int) -> int:
    """The offset at which the last line ends, without its newline."""
    return size - 1 if os.pread(fd, 1, size - 1) == b"\n" else size


def _lines_backwards(fd: int, end: int) -> Iterator[tuple[int, int]]:
    """The first and last offset of each line, the last line first."""
    stop, at = end, end
    while at > 0:
        length = min(_BLOCK, at)
        at -= length
        block = os.pread(fd, length, at)
        found = block.rfind(b"\n")
        while found >= 0:
            yield at + found + 1, stop
            stop = at + found
            found = block.rfind(b"\n", 0, found)
    yield 0, stop


def _add_bytes(chain: Chain, fd: int, start: int, end: int) -> Chain:
    """Add the bytes between two offsets to a chain, as a fragment."""
    chain.add_fragment(b"")
    while start < end and (block := os.pread(fd, min(_BLOCK, end - start), start)):
        chain.extend_fragment(block)
        start += len(block)
    return chain


class _FirstBytes:
    """The first bytes of a file, up to a size."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._left = size

    def readline(self, limit: int, /) -> bytes:
        line = self._file.readline(min(limit, self._left))
        self._left -= len(line)
        return line


@contextmanager
def opened_as_it_is_now(path: Path) -> Iterator[LineSource]:
    """The lines that are written by now, plain or gzipped; raises OSError. For commands: it may wait."""
    with path.open("rb") as file:
        if is_gzipped(file):
            with opened(path) as stream:
                yield stream
        elif stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield _FirstBytes(file, _size_after_write(file.fileno()))
        else:
            yield file


def _size_after_write(fd: int) -> int:
    # A write is seen growing by readers, and for a moment its last line looks torn.
    for _ in range(_LOOKS_AT_THE_END):
        size = os.fstat(fd).st_size
        if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
            return size
        time.sleep(0.01)
    return os.fstat(fd).st_size
