"""The history of one server over all its files: each reading told as what is new since the one before.

Files are read in the order of their names, which is that of the server's clock. Where that clock was set back
it is not the order of events, and there is no telling from two files which was first: of what lies twice in
the same time by the clock the one half is left out, and that is said.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from reaper.history.decode import Decoder, Head
from reaper.history.format import GZIP, LONGEST_LINE, MOST_BYTES, BadHistory
from reaper.policy.seen import Change, Reading, Seen
from reaper.policy.session import SessionId
from reaper.policy.time import Instant

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


def by_server(files: Iterable[Path], told: Callable[[str], None]) -> Mapping[str, Sequence[Path]]:
    """The files of each server, in their order; raises OSError and BadHistory."""
    found = dict[str, list[Path]]()
    for path in files:
        head = HistoryFile(path, told=told).head()
        if head is None:
            told(f"{path}: holds no whole line, and is left out")
        else:
            found.setdefault(head.server, []).append(path)
    return found


class HistoryStream:
    """Reads the files of one server."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        told: Callable[[str], None] = lambda _: None,
        passed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._files = files
        self._told = told
        self._passed = passed
        self._at: Instant | None = None
        self._last: Mapping[SessionId, Seen] = {}
        self._left_out: dict[Path, int] = {}

    def readings(self) -> Iterator[Reading]:
        """Every reading, each later than the one before; raises OSError and BadHistory."""
        for path in self._files:
            yield from self._of(HistoryFile(path, told=self._told))
        if self._left_out:
            self._told(_out_of_order(self._left_out))

    def _of(self, file: HistoryFile) -> Iterator[Reading]:
        passed = 0
        last: Mapping[SessionId, Seen] | None = self._last
        """What the next reading is to be compared with, when that is not the one before it in this file."""
        for reading in file.readings():
            self._passed(file.position - passed)
            passed = file.position
            if self._at is not None and reading.at <= self._at:
                last = _before(reading) if last is None else last
                self._left_out[file.path] = self._left_out.get(file.path, 0) + 1
                continue
            if last is not None:
                reading.changed, reading.left = _since(last, reading.sessions)
                last = None
            self._at = reading.at
            self._last = reading.sessions
            yield reading
        if last is not None:
            self._last = last
        self._passed(file.path.stat().st_size - passed)


def _before(reading: Reading) -> Mapping[SessionId, Seen]:
    """Everybody as they were in the reading before, which a file's reader has gone on from."""
    was = dict(reading.sessions)
    for change in reading.changed:
        if change.was is None:
            del was[change.now.id]
        else:
            was[change.was.id] = change.was
    was.update((seen.id, seen) for seen in reading.left)
    return was


def _out_of_order(left_out: Mapping[Path, int]) -> str:
    first, *more = left_out
    which = f"{first} and {len(more)} more" if more else str(first)
    return (
        f"{which}: {sum(left_out.values())} looks are left out, for by the server's clock they are not later "
        "than others: it was set back, or two reapers wrote there. What is read is in the order of that "
        "clock, not of events: to judge what was before the step, and what was after it, give either alone"
    )


def _since(
    before: Mapping[SessionId, Seen], now: Mapping[SessionId, Seen]
) -> tuple[Sequence[Change], Sequence[Seen]]:
    changed = [Change(before.get(who), seen) for who, seen in now.items() if before.get(who) != seen]
    return changed, [seen for who, seen in before.items() if who not in now]
