"""One volume of a record, read on from a mark in pieces of bounded size."""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, Final

from reaper.record.marks import Mark
from reaper.record.reader import LONGEST_LINE, opened
from reaper.record.volumes import Volume, identity_of

_BLOCK: Final = 128 * 1024
_BLOCKS_TO_SKIP: Final = 64
"""So many blocks are unpacked in vain before whoever reads may do something else."""

_MOST_LINES: Final = 500
_CHECKED: Final = 256
"""Bytes before a mark by which the place is known again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next whole lines, without their ends; none while the place to go on from is still looked for."""

    identity: str
    lines: tuple[bytes, ...] = ()
    mark: Mark | None = None
    """The place after these lines."""
    size: int = 0
    passed_over: bool = False
    """Whether a line in it was too long to be one of ours."""


class Reading:
    """Reads one volume, as far as it has whole lines."""

    def __init__(self, volume: Volume, mark: Mark) -> None:
        """Open it; FileNotFoundError also when another file has taken its place by now."""
        self.volume = volume
        # What is kept beside the record may be strange: behind the end there is no place to go on from.
        beyond = not volume.packed and mark.offset > volume.signature.size
        self._mark: Mark | None = Mark() if beyond else mark
        self._at = 0
        self._before = b""
        self._rest = b""
        self._passing_over = False
        with ExitStack() as stack:
            self._stream = _same(stack.enter_context(opened(volume.path)), volume)
            self._open = stack.pop_all()

    def piece(self) -> Piece | None:
        """The next piece; nothing at the end."""
        if self._mark:
            self._go_to(self._mark)
            return Piece(identity=self.volume.identity)
        while b"\n" not in self._rest:
            block = self._stream.read(_BLOCK)
            if not block:
                return None
            self._rest += block
            if len(self._rest) > LONGEST_LINE and b"\n" not in block:
                self._passing_over = True
                self._advance(self._rest)
                self._rest = b""
        return self._whole_lines()

    def close(self) -> None:
        """Let go of the file."""
        self._open.close()

    def _whole_lines(self) -> Piece:
        whole, _, torn = self._rest.rpartition(b"\n")
        lines = whole.split(b"\n", _MOST_LINES)
        more = lines.pop() + b"\n" if len(lines) > _MOST_LINES else b""
        taken = self._rest[: len(whole) + 1 - len(more)]
        self._rest = more + torn
        self._advance(taken)
        passed_over, self._passing_over = self._passing_over, False
        return Piece(
            identity=self.volume.identity,
            lines=tuple(lines[passed_over:]),
            mark=Mark(offset=self._at, check=_digest(self._before)),
            size=len(taken),
            passed_over=passed_over,
        )

    def _go_to(self, mark: Mark) -> None:
        """Skip what was read in an earlier life, a bounded part of it, or begin anew if it is not there."""
        if not self.volume.packed and not self._at:
            self._at = self._stream.seek(max(mark.offset - _CHECKED, 0))
        for _ in range(_BLOCKS_TO_SKIP):
            block = self._stream.read(min(_BLOCK, mark.offset - self._at))
            self._advance(block)
            if not block:
                break
        else:
            return
        self._mark = None
        if self._at != mark.offset or (mark.offset and _digest(self._before) != mark.check):
            self._at = self._stream.seek(0)
            self._before = b""

    def _advance(self, block: bytes) -> None:
        self._at += len(block)
        self._before = (self._before + block[-_CHECKED:])[-_CHECKED:]


def _same(stream: BinaryIO, volume: Volume) -> BinaryIO:
    # A number that was given back is soon another file's: only how it begins tells for sure.
    first = stream.readline(LONGEST_LINE)
    if os.fstat(stream.fileno()).st_ino != volume.signature.inode or identity_of(first) != volume.identity:
        raise FileNotFoundError
    stream.seek(0)
    return stream


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
