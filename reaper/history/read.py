"""Reads the history of one server from all its files: each snapshot with the changes since the one before.

Files are read in the order of their names, which is that of the server's clock. Where that clock was set
back, it is not the order of events: snapshots that are not later than the one before are left out.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from reaper.history.decode import BadHistory, FileHead, HistoryDecoder
from reaper.insight.recorded import RecordedSnapshot, SessionChange
from reaper.policy.session import Session, SessionId
from reaper.policy.time import Timestamp

GZIP: Final = 31
"""zlib's `wbits` for gzip."""
_CHUNK: Final = 512
"""Small, because what follows the last whole chunk before a damaged byte is lost."""
_MAX_UNPACKED: Final = 1024 * 1024
_MAX_LINE: Final = 64 * 1024 * 1024
_MAX_BYTES: Final = 2 * 1024 * 1024 * 1024

Report = Callable[[str], None]
"""Receives a sentence about a file that cannot be read to its end."""


class HistoryFile:
    """One file, read up to its last whole line."""

    def __init__(self, path: Path, report: Report) -> None:
        self.path = path
        self.position = 0
        """Bytes of the file that have been read."""
        self._report = report

    def head(self) -> FileHead | None:
        """Return the head, if there is a whole line. Raises OSError and BadHistory."""
        decoder = HistoryDecoder(str(self.path))
        for line in self._lines():
            decoder.decode(line)
            break
        return decoder.head

    def snapshots(self) -> Iterator[RecordedSnapshot]:
        """Yield every snapshot. Raises OSError and BadHistory."""
        decoder = HistoryDecoder(str(self.path))
        yield from filter(None, map(decoder.decode, self._lines()))

    def _lines(self) -> Iterator[bytearray]:
        rest = bytearray()
        for piece in self._pieces():
            rest += piece
            if b"\n" in piece:
                *lines, rest = rest.split(b"\n")
                yield from lines
            if len(rest) > _MAX_LINE:
                raise BadHistory(str(self.path), 0, "a line has no end")
        if rest:
            self._report(f"{self.path}: ends within a line; read up to the last whole one")

    def _pieces(self) -> Iterator[bytes]:
        """Unpack in pieces of limited size, however well the file is packed."""
        unpack, total = zlib.decompressobj(GZIP), 0
        with self.path.open("rb") as file:
            while not unpack.eof:
                data = unpack.unconsumed_tail or file.read(_CHUNK)
                try:
                    piece = unpack.decompress(data, _MAX_UNPACKED)
                except zlib.error as error:
                    self._report(f"{self.path}: damaged before byte {file.tell()} ({error}); read up to it")
                    return
                if not data and not piece:
                    return
                self.position = file.tell()
                total += len(piece)
                if total > _MAX_BYTES:
                    raise BadHistory(str(self.path), 0, f"it unpacks to more than {_MAX_BYTES} bytes")
                yield piece


def by_server(files: Iterable[Path], report: Report) -> Mapping[str, Sequence[Path]]:
    """Return the files of each server, in their order. Raises OSError and BadHistory."""
    found = dict[str, list[Path]]()
    for path in files:
        head = HistoryFile(path, report).head()
        if head is None:
            report(f"{path}: left out, because it holds no whole line")
        else:
            found.setdefault(head.server, []).append(path)
    return found


class HistoryReader:
    """Reads the files of one server as one stream."""

    def __init__(
        self, files: Sequence[Path], report: Report, *, advance: Callable[[int], None] = lambda _: None
    ) -> None:
        self._files = files
        self._report = report
        self._advance = advance
        """Receives the number of bytes read, for a progress bar."""
        self._at: Timestamp | None = None
        self._sessions: dict[SessionId, Session] = {}
        """All sessions as of the last snapshot that was yielded."""
        self._left_out: dict[Path, int] = {}

    def snapshots(self) -> Iterator[RecordedSnapshot]:
        """Yield every snapshot, each later than the one before. Raises OSError and BadHistory."""
        for path in self._files:
            yield from self._of_file(HistoryFile(path, self._report))
        if self._left_out:
            self._report(_out_of_order(self._left_out))

    def _of_file(self, file: HistoryFile) -> Iterator[RecordedSnapshot]:
        position, follows = 0, False
        for snapshot in file.snapshots():
            self._advance(file.position - position)
            position = file.position
            if self._at is not None and snapshot.at <= self._at:
                self._left_out[file.path] = self._left_out.get(file.path, 0) + 1
                follows = False
                continue
            if not follows:
                # The file holds the changes since a snapshot that was not yielded.
                snapshot.changed, snapshot.left = _difference(self._sessions, snapshot.sessions)
                follows = True
            for was in snapshot.left:
                del self._sessions[was.id]
            self._sessions.update((now.id, now) for _, now in snapshot.changed)
            self._at = snapshot.at
            yield snapshot
        self._advance(file.path.stat().st_size - position)


def _difference(
    before: Mapping[SessionId, Session], now: Mapping[SessionId, Session]
) -> tuple[Sequence[SessionChange], Sequence[Session]]:
    changed = [SessionChange(before.get(key), one) for key, one in now.items() if before.get(key) != one]
    return changed, [one for key, one in before.items() if key not in now]


def _out_of_order(left_out: Mapping[Path, int]) -> str:
    first, *more = left_out
    files = f"{first} and {len(more)} more" if more else str(first)
    return (
        f"{files}: {sum(left_out.values())} snapshots are left out, because by the server's clock they are "
        "not later than others: the clock was set back, or two reapers wrote to this folder. "
        "hint: to judge the time before and after such a step, give the files of each by themselves"
    )
