"""Reads history files back, one after the other, in little memory however long they are."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from reaper.policy.seen import Reading
from reaper.record.history_decoder import Decoder, Head
from reaper.record.history_format import GZIP, LONGEST_LINE, MOST_BYTES, BadHistory

_CHUNK: Final = 64 * 1024
_UNPACKED: Final = 1024 * 1024


class HistoryFile:
    """One file, read from its beginning to its last whole look."""

    def __init__(self, path: Path, *, told: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self._told = told
        self._decoder = Decoder(str(path))
        self.position = 0
        """How far it has been read, in bytes of the file."""

    def head(self) -> Head | None:
        """What the first line says; nothing when there is none. Raises OSError and BadHistory."""
        decoder = Decoder(str(self.path))
        with self.path.open("rb") as file:
            for line in self._lines(file):
                decoder.read(line)
                break
        return decoder.head

    def readings(self) -> Iterator[Reading]:
        """Every reading; raises OSError and BadHistory."""
        with self.path.open("rb") as file:
            for line in self._lines(file):
                if reading := self._decoder.read(line):
                    yield reading

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        rest = b""
        for piece in self._pieces(file):
            *lines, rest = (rest + piece).split(b"\n") if b"\n" in piece else [rest + piece]
            if len(rest) > LONGEST_LINE:
                self._refuse("a line has no end; no look is so long")
            yield from lines
        if rest:
            self._told(f"{self.path}: ends amid a line, and is read up to the last whole one")

    def _pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """Unpack in pieces of a bounded size, however small they were packed."""
        unpack, total = zlib.decompressobj(GZIP), 0
        while not unpack.eof:
            data, before = unpack.unconsumed_tail or file.read(_CHUNK), unpack.copy()
            try:
                piece = unpack.decompress(data, _UNPACKED)
            except zlib.error as error:
                self._told(f"{self.path}: damaged before byte {file.tell()} ({error}), and read up to there")
                yield from _up_to_the_damage(before, data)
                return
            if not data and not piece:
                return
            self.position = file.tell()
            total += len(piece)
            if total > MOST_BYTES:
                self._refuse(f"it unpacks to more than {MOST_BYTES} bytes")
            yield piece

    def _refuse(self, what: str) -> None:
        raise BadHistory(file=str(self.path), line=0, what=f"{what}; give what `reaper record-history` wrote")


def _up_to_the_damage(unpack: Any, data: bytes) -> Iterator[bytes]:  # noqa: ANN401 (zlib names no type)
    with suppress(zlib.error):
        for number in range(len(data)):
            yield unpack.decompress(data[number : number + 1], _UNPACKED)
