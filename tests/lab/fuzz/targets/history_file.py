"""A history is read and judged, or refused in a sentence, whatever stands in its lines and its packing."""

import gzip
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from reaper.history.folder import history_files
from reaper.history.format import BadHistory
from reaper.history.read import HistoryStream, by_server
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.policy.seen import Mark
from reaper.policy.session import STATES
from reaper.policy.text import plain
from reaper.policy.time import SECOND, Instant, Span
from tests.lab.fuzz.promises import is_line, is_sentence
from tests.lab.fuzz.rules import RULES
from tests.unit.history.histories import writer
from tests.unit.policy.build import NOW, session, snapshot

_RHYTHM: Final = Rhythm(Span(10 * SECOND), Span(SECOND))


def _seeds() -> tuple[bytes, ...]:
    names = ("web-1", "\x1b[2J\n\ud800", "protected", None)
    first = [session(pid, application=name) for pid, name in enumerate(names, start=2)]
    woke = [replace(one, state_change=Instant(NOW + 3), state=STATES[one.id.pid % 4]) for one in first[:3]]
    with TemporaryDirectory() as folder:
        keeper = writer(Path(folder))
        keeper.reading(snapshot(*first))
        keeper.sighting(Instant(NOW + SECOND), first, snapshot().facts)
        keeper.reading(
            snapshot(*woke, session(9), at=Instant(NOW + 10 * SECOND)), [Mark(Instant(NOW + SECOND), 4)]
        )
        keeper.reading(snapshot(*first[1:], at=Instant(NOW + 20 * SECOND)))
        keeper.close()
        (path,) = history_files(Path(folder))
        lines = gzip.decompress(path.read_bytes())
    head, *looks = lines.splitlines(keepends=True)
    return (lines, head + looks[0], head + b"".join(looks[:2]) * 2, head + looks[-1], b"[" * 500 + b"\n\0\n")


SEEDS: Final = _seeds()
WORDS: Final = tuple(
    f'"{word}":'.encode()
    for word in (
        *(
            "at",
            "seen",
            "slots",
            "used",
            "unreadable",
            "watcher",
            "counted_from",
            "locks",
            "waiters",
            "names",
        ),
        *("who", "came", "moved", "xids", "left", "looks", "rows", "every", "history", "server"),
    )
)


def check(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for content in (gzip.compress(data, 1), data):
            path = Path(folder) / "history-a-20250618T120000Z.jsonl.gz"
            path.write_bytes(content)
            _read(path)


def _read(path: Path) -> None:
    told: list[str] = []
    try:
        for server, files in by_server(history_files(path), told.append).items():
            is_line(plain(server))
            backtest = Backtest(server, RULES, _RHYTHM)
            for reading in HistoryStream(files, told=told.append).readings():
                assert len(reading.snapshot().sessions) == len(reading.sessions)
                for _, reap, _ in backtest.read(reading).taken:
                    is_line(plain(reap.reason))
            backtest.end()
            assert sum(backtest.findings.taken.values()) >= 0
    except BadHistory as bad:
        is_sentence(plain(bad), longest=500)
    for each in told:
        is_sentence(plain(each), longest=500)
