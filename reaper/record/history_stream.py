"""The history of one server over all its files: each reading told as what is new since the one before."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reaper.policy.seen import Change, Reading, Seen
from reaper.policy.session import SessionId
from reaper.policy.spans import Instant
from reaper.record.history import HistoryFile


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

    def readings(self) -> Iterator[Reading]:
        """Every reading, each later than the one before; raises OSError and BadHistory."""
        for path in self._files:
            yield from self._of(HistoryFile(path, told=self._told))

    def _of(self, file: HistoryFile) -> Iterator[Reading]:
        last, first, passed = self._last, True, 0
        for reading in file.readings():
            self._passed(file.position - passed)
            passed = file.position
            # Two that wrote at once, or a clock that was set back.
            if self._at is not None and reading.at <= self._at:
                continue
            if first:
                reading.changed, reading.left = _since(last, reading.sessions)
                first = False
            self._at = reading.at
            self._last = reading.sessions
            yield reading
        self._passed(file.path.stat().st_size - passed)


def _since(
    before: Mapping[SessionId, Seen], now: Mapping[SessionId, Seen]
) -> tuple[Sequence[Change], Sequence[Seen]]:
    changed = [Change(before.get(who), seen) for who, seen in now.items() if before.get(who) != seen]
    return changed, [seen for who, seen in before.items() if who not in now]
