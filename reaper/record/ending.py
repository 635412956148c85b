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
    end = size - 1 if os.pread(fd, 1, size - 1) == b"\n" else size
    for start, stop in _lines_backwards(fd, end):
        line = os.pread(fd, stop - start, start) if stop - start < LONGEST_LINE else b""
        if isinstance(parsed(line), dict):
            chain = Chain()
            chain.whole(line)
            return _behind(chain, fd, stop + 1, end) if stop < end else chain
    return _behind(before(), fd, 0, end)


def chain_of_copies(copies: list[Path]) -> Chain:
    """The chain behind the last of these files, the oldest first; raises OSError when it cannot be read."""
    if not copies:
        return Chain()
    *older, last = copies
    # Locked, for another reaper may not have seen yet that it was renamed.
    with last.open("rb") as file, locked(file.fileno()):
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return chain_of_copies(older)
        if not is_packed(file):
            return chain_at_end(file.fileno(), size, before=lambda: chain_of_copies(older))
    chain = chain_of_copies(older)
    with opened(last) as stream:
        for line in walk(stream, chain):
            if line.fields is not None:
                chain.whole(line.data)
    return chain


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
