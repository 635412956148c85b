"""History files: replayed, or refused in sentences."""

import gzip
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from reaper.history.decode import BadHistory
from reaper.history.read import HistoryReader, by_server
from reaper.history.write import history_files
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.insight.recorded import CycleMark
from reaper.policy.session import STATES
from reaper.policy.text import printable
from reaper.policy.time import SECOND, Duration, Timestamp
from tests.unit.history.histories import writer
from tests.unit.policy.build import NOW, session, snapshot

from .inputs import RULES, Target, is_line, is_sentence

_RHYTHM: Final = Rhythm(Duration(10 * SECOND), Duration(SECOND))


def _history_file_seeds() -> tuple[bytes, ...]:
    names = ("web-1", "\x1b[2J\n\ud800", "protected", None)
    first = [session(pid, application=name) for pid, name in enumerate(names, start=2)]
    woke = [replace(one, state_change=Timestamp(NOW + 3), state=STATES[one.id.pid % 4]) for one in first[:3]]
    with TemporaryDirectory() as folder:
        keeper = writer(Path(folder))
        keeper.write(snapshot(*first))
        keeper.write_partial(Timestamp(NOW + SECOND), first)
        keeper.write(
            snapshot(*woke, session(9), at=Timestamp(NOW + 10 * SECOND)),
            [CycleMark(Timestamp(NOW + SECOND), 4)],
        )
        keeper.write(snapshot(*first[1:], at=Timestamp(NOW + 20 * SECOND)))
        keeper.close()
        (path,) = history_files(Path(folder))
        lines = gzip.decompress(path.read_bytes())
    head, *looks = lines.splitlines(keepends=True)
    return (lines, head + looks[0], head + b"".join(looks[:2]) * 2, head + looks[-1], b"[" * 500 + b"\n\0\n")


_HISTORY_FILE: Final = _history_file_seeds()
_HISTORY_FILE_WORDS: Final = tuple(
    b'"%s":' % word
    for word in (
        b"at partial slots used unreadable watcher counted_from locks waiters came moved left cycles rows"
        b" every history server"
    ).split()
)


def _check_history_file(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for content in (gzip.compress(data, 1), data):
            path = Path(folder) / "history-a-20250618T120000Z.jsonl.gz"
            path.write_bytes(content)
            _read_history(path)


def _read_history(path: Path) -> None:
    complaints: list[str] = []
    try:
        for server, files in by_server(history_files(path), complaints.append).items():
            is_line(printable(server))
            backtest = Backtest(server, RULES, _RHYTHM)
            for recorded in HistoryReader(files, complaints.append).snapshots():
                assert len(recorded.snapshot().sessions) == len(recorded.sessions)
                for _, candidate, _ in backtest.read(recorded).terminations:
                    is_line(printable(candidate.reason))
            backtest.end()
            assert sum(backtest.terminations.values()) >= 0
    except BadHistory as bad:
        is_sentence(printable(bad), longest=500)
    for each in complaints:
        is_sentence(printable(each), longest=500)


TARGETS: Final = (Target("history_file", _check_history_file, _HISTORY_FILE, _HISTORY_FILE_WORDS),)
