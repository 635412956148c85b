"""Backtests of made-up weeks: how many sessions a second, and whether memory depends on the length."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from reaper import __version__
from reaper.history.folder import Bounds, HistoryFolder
from reaper.history.write import HistoryWriter
from reaper.policy.time import SECOND, Span
from tests.lab.report import Scale
from tests.system.command import find

from .table import figure, table
from .traffic import EVERY, Shape, Traffic

_A_DAY: Final = 86_400 // EVERY
_MEBIBYTE: Final = 2**20
_POLICIES: Final = """\
version: 1
policies:
  - name: leaked
    match: {state: [idle], idle_for: 30m, application: [checkout, "report-*", "web-*"]}
  - name: consoles
    match: {state: [idle in transaction], idle_for: 10m}
  - name: last-slots
    match: {state: [idle], idle_for: 5m}
    when: {slots_used: 90%}
    safety_limit: none
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    readings: Sequence[int]
    members: int


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(readings=(_A_DAY, 7 * _A_DAY), members=80),
    Scale.QUICK: _Size(readings=(_A_DAY // 12, _A_DAY // 2), members=80),
    Scale.SMOKE: _Size(readings=(20, 40), members=3),
}
_BUSY: Final = {"nearly all idle": 0.02, "a tenth at work": 0.1, "a third at work": 0.33, "all at work": 1.0}
_IN_BOTH_LENGTHS: Final = "a tenth at work"
_POOLS: Final = 6


class _Cost(NamedTuple):
    cpu: float
    rss: float


def run(scale: Scale, major: int) -> Iterator[str]:  # noqa: ARG001 (no server takes part)
    """One table: several ways to be busy, and the same in several lengths."""
    size = _SIZES[scale]
    rows = []
    for name, busy in _BUSY.items():
        lengths = size.readings if name == _IN_BOTH_LENGTHS else size.readings[:1]
        shape = Shape(members=size.members, busy=busy, slots=_POOLS * size.members * 5 // 4)
        rows += [_row(name, shape, readings) for readings in lengths]
    yield table(
        f"Backtest: three policies over a history with a reading every {EVERY} s, by the command as it is;\n"
        "at work is who did something since the reading before, at noon",
        ("", "readings", "sessions", "seen", "a day's files", "written in", "CPU", "seen a second", "RSS"),
        rows,
    )


def _row(name: str, shape: Shape, readings: int) -> Sequence[str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seen, writing = _write(folder / "history", shape, readings)
        packed = sum(path.stat().st_size for path in (folder / "history").iterdir())
        (folder / "policies.yaml").write_text(_POLICIES, encoding="utf-8")
        empty = _asked(folder, "check", "--offline")
        cost = _asked(folder, "backtest", "--history", "history")
    return (
        name,
        f"{readings:,}",
        f"{seen / readings:,.0f}",
        f"{seen:,}",
        figure(packed / _MEBIBYTE * _A_DAY / readings, "MiB"),
        figure(1_000 * writing / readings, "ms", 2),
        figure(cost.cpu, "s", 2),
        f"{seen / max(cost.cpu - empty.cpu, 0.01):,.0f}",
        figure(cost.rss, "MiB", 1),
    )


def _write(folder: Path, shape: Shape, readings: int) -> tuple[int, float]:
    """How many sessions were seen, and the CPU that writing them took."""
    bounds = Bounds(most_bytes=2**40, keep_for=Span(36_500 * 86_400 * SECOND))
    writer = HistoryWriter(
        HistoryFolder(folder, bounds), server="orders", every=Span(EVERY * SECOND), version=__version__
    )
    seen, took = 0, 0.0
    for snapshot in Traffic(shape).snapshots(readings):
        seen += len(snapshot.sessions)
        began = time.process_time()
        writer.reading(snapshot)
        took += time.process_time() - began
    writer.close()
    return seen, took


def _asked(folder: Path, *arguments: str) -> _Cost:
    """Run the command; what it took."""
    program = subprocess.Popen([find("reaper"), *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    assert program.returncode == 0, arguments
    return _Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
