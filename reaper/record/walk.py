"""Goes through bytes line by line, whatever stands there, and lets a chain follow."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from reaper.record.chain import Chain
from reaper.record.reader import LONGEST_LINE, parsed


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
