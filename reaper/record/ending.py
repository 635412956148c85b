"""The chain up to the end of a file, read from that end: nothing before the last whole line counts."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from reaper.record.chain import Chain
from reaper.record.lock import locked
from reaper.record.reader import LONGEST_LINE, is_packed, opened, parsed
from reaper.record.walk import walk

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
