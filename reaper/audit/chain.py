"""The hash chain: each line carries the SHA-256 of the line before it.

What is no whole entry, such as a torn line, is hashed together with the entry before it.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol, Self

from reaper.audit.events import PREV
from reaper.audit.reader import LONGEST_LINE, RawLine, is_entry, is_gzipped, iterate_lines, opened

_END: Final = b"}\n"
_BLOCK: Final = 64 * 1024


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

    def add(self, line: RawLine) -> None:
        """Add a line that was read, whatever it is."""
        if line.fields is not None:
            self.add_entry(line.data)
        elif line.continues:
            self._extend(line.data)
        else:
            self.add_fragment(line.data)

    def add_entry(self, line: bytes) -> None:
        """Add a whole entry, without its newline. Nothing before it is needed any more."""
        self._digest = sha256(line)
        self.ends_torn = False

    def add_fragment(self, line: bytes) -> None:
        """Add something that is no entry, without its last newline; it may be several lines."""
        self._extend(b"\n" + line if self._digest else line)

    def add_bytes(self, fd: int, start: int, end: int) -> None:
        """Add what is between two offsets of an open file as one fragment."""
        # In blocks: what another program appended may be larger than memory.
        self.add_fragment(b"")
        while start < end and (block := os.pread(fd, min(_BLOCK, end - start), start)):
            self._extend(block)
            start += len(block)

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

    def _extend(self, block: bytes) -> None:
        self._digest = self._digest or sha256()
        self._digest.update(block)
        self.ends_torn = True


def chain_at_end(fd: int, size: int, *, before: Callable[[], Chain]) -> Chain:
    """The chain after the first `size` bytes of an open file; `before` is called if they hold no entry."""
    chain = _chain_within(fd, size)
    if chain is None:
        # Reading the file before this one is expensive, and rarely needed.
        chain = before()
        chain.add_bytes(fd, 0, _end(fd, size))
    return chain


def chain_of_copies(copies: Sequence[Path]) -> Chain:
    """The chain after the last of these files, the oldest first; raises OSError."""
    without_entry, chain = list[Path](), None
    # Reads backwards, and nothing before the last entry: there may be a thousand copies.
    for copy in reversed(copies):
        chain = _chain_in(copy)
        if chain:
            break
        without_entry.append(copy)
    chain = chain or Chain()
    for copy in reversed(without_entry):
        for line in _lines(copy):
            chain.add(line)
    return chain


def _chain_in(copy: Path) -> Chain | None:
    """The chain after a file; None if it holds no entry."""
    with copy.open("rb") as file:
        if not is_gzipped(file):
            return _chain_within(file.fileno(), os.fstat(file.fileno()).st_size)
    chain, found = Chain(), False
    for line in _lines(copy):
        chain.add(line)
        found = found or line.fields is not None
    return chain if found else None


def _lines(copy: Path) -> Iterator[RawLine]:
    with opened(copy) as stream:
        for line in iterate_lines(stream):
            if line.unreadable:
                # A chain that continued from the last readable line would hide the lines after it.
                raise OSError(errno.EIO, line.why)
            yield line


def _chain_within(fd: int, size: int) -> Chain | None:
    """The chain after the first bytes of an open file; None if they hold no entry."""
    end = _end(fd, size)
    for start, stop in _lines_backwards(fd, end):
        # A line that is too long for memory is no entry, and belongs to the fragment.
        line = os.pread(fd, stop - start, start) if stop - start < LONGEST_LINE else b""
        if is_entry(line):
            chain = Chain()
            chain.add_entry(line)
            if stop < end:
                chain.add_bytes(fd, stop + 1, end)
            return chain
    return None


def _end(fd: int, size: int) -> int:
    """The offset at which the last line ends, without its newline."""
    return size - 1 if size and os.pread(fd, 1, size - 1) == b"\n" else size


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
