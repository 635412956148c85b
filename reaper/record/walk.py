"""Goes through bytes line by line, whatever stands there, and lets a chain follow."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from reaper.record.chain import Chain
from reaper.record.reader import LONGEST_LINE, parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line as it stands there."""

    number: int
    fields: Mapping[str, object] | None
    """What it says, when it is a whole line of a record."""
    why: str = ""
    """Otherwise why not."""


class Damaged(Exception):
    """A compressed file cannot be read on from here."""


def walk(stream: BinaryIO, chain: Chain) -> Iterator[Line]:
    """Each line; the chain follows when the next one is asked for. Raises Damaged."""
    number = 0
    while data := _next(stream, LONGEST_LINE):
        number += 1
        if len(data) == LONGEST_LINE and not data.endswith(b"\n"):
            _follow_endless(data, stream, chain)
            yield Line(number=number, fields=None, why=f"longer than {LONGEST_LINE} bytes")
            continue
        line = data.removesuffix(b"\n")
        fields = parsed(line)
        if isinstance(fields, str):
            yield Line(number=number, fields=None, why=fields)
            chain.loose(line)
        else:
            yield Line(number=number, fields=fields)
            chain.whole(line)


def _follow_endless(piece: bytes, stream: BinaryIO, chain: Chain) -> None:
    chain.loose(b"")
    while piece:
        chain.more(piece.removesuffix(b"\n"))
        if piece.endswith(b"\n"):
            break
        piece = _next(stream, LONGEST_LINE)


def _next(stream: BinaryIO, limit: int) -> bytes:
    try:
        return stream.readline(limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"the compressed file is damaged from here on: {error}"
        raise Damaged(message) from error
