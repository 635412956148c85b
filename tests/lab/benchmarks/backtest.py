"""Backtests of invented traffic: how many sessions a second, and whether memory depends on the length."""

import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from reaper.history.write import HistoryFolder, HistoryLimits, HistoryOptions, HistoryWriter
from reaper.policy.session import (
    ACTIVE,
    IDLE,
    IN_TRANSACTION,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import SECOND, Instant, Span
from tests.lab.report import Scale, figure, milliseconds, table
from tests.system.command import find
from tests.system.policies import FILE

_EVERY: Final = 10
_DAY: Final = 86_400
_SNAPSHOTS_A_DAY: Final = _DAY // _EVERY
_BEGAN: Final = 1_749_600_000 * SECOND
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
class _BacktestSize:
    snapshots: Sequence[int]
    members: int
    """Of each pool."""


_SIZES: Final[Mapping[Scale, _BacktestSize]] = {
    Scale.FULL: _BacktestSize(snapshots=(_SNAPSHOTS_A_DAY, 7 * _SNAPSHOTS_A_DAY), members=80),
    Scale.SMOKE: _BacktestSize(snapshots=(20, 40), members=3),
}
_BUSY: Final = {"nearly all idle": 0.02, "a tenth at work": 0.1, "a third at work": 0.33, "all at work": 1.0}
_IN_ALL_LENGTHS: Final = "a tenth at work"
_POOLS: Final = 6
_LEAKS_A_DAY: Final = 150


def run(scale: Scale, major: int) -> Iterator[str]:  # noqa: ARG001 (no server takes part)
    """One table: some shares of sessions at work, and the same in several lengths."""
    size = _SIZES[scale]
    rows = []
    for name, busy in _BUSY.items():
        lengths = size.snapshots if name == _IN_ALL_LENGTHS else size.snapshots[:1]
        rows += [_row(name, _Traffic(size.members, busy), snapshots) for snapshots in lengths]
    yield table(
        f"Backtest: three policies and a history with a snapshot every {_EVERY} s, by the command;\n"
        "at work are those that did something since the snapshot before, at noon",
        ("", "snapshots", "sessions", "observed", "a day's files", "written in", "CPU", "a second", "RSS"),
        rows,
    )


class _BacktestCost(NamedTuple):
    cpu: float
    rss: float


def _row(name: str, traffic: "_Traffic", snapshots: int) -> Sequence[str]:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        observed, writing = _write(folder / "history", traffic, snapshots)
        packed = sum(path.stat().st_size for path in (folder / "history").iterdir())
        (folder / FILE).write_text(_POLICIES, encoding="utf-8")
        empty = _command(folder, "check", "--offline")
        cost = _command(folder, "backtest", "--history", "history")
    return (
        name,
        f"{snapshots:,}",
        f"{observed / snapshots:,.0f}",
        f"{observed:,}",
        figure(packed / _MEBIBYTE * _SNAPSHOTS_A_DAY / snapshots, "MiB"),
        milliseconds(writing / snapshots, 2),
        figure(cost.cpu, "s", 2),
        f"{observed / max(cost.cpu - empty.cpu, 0.01):,.0f}",
        figure(cost.rss, "MiB", 1),
    )


def _write(folder: Path, traffic: "_Traffic", snapshots: int) -> tuple[int, float]:
    """Write a history; return how many sessions were observed, and the CPU."""
    limits = HistoryLimits(max_bytes=2**40, keep_for=Span(36_500 * _DAY * SECOND))
    options = HistoryOptions(folder=HistoryFolder(folder, limits), every=Span(_EVERY * SECOND))
    writer = HistoryWriter(options, "orders")
    observed, took = 0, 0.0
    for snapshot in traffic.snapshots(snapshots):
        observed += len(snapshot.sessions)
        began = time.process_time()
        writer.write(snapshot)
        took += time.process_time() - began
    writer.close()
    return observed, took


def _command(folder: Path, *arguments: str) -> _BacktestCost:
    """Run a command; return its CPU and memory."""
    program = subprocess.Popen([find("reaper"), *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    assert program.returncode == 0, arguments
    return _BacktestCost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


class _Traffic:
    """The sessions of one server: pools at work by day, leaks, forgotten transactions, jobs by the clock."""

    def __init__(self, members: int, busy: float) -> None:
        self._busy = busy
        """The share of a pool's members that did something since the snapshot before."""
        self._slots = _POOLS * members * 5 // 4
        self._dice = Random(7)  # noqa: S311 (the same traffic each time)
        self._at = Instant(_BEGAN)
        self._pids = 100
        self._sessions: dict[SessionId, Session] = {}
        self._ends: dict[SessionId, Instant] = {}
        self._pool = [self._open(f"web-{n % _POOLS}", f"app_{n % _POOLS}") for n in range(members * _POOLS)]

    def snapshots(self, count: int) -> Iterator[Snapshot]:
        """Snapshots, one after the other."""
        for _ in range(count):
            self._at = Instant(self._at + _EVERY * SECOND)
            self._work()
            self._come_and_go()
            yield Snapshot(
                server="orders",
                at=self._at,
                slots=Slots(total=self._slots, reserved=3, used=len(self._sessions)),
                watcher=Watcher(pid=1, role="reaper", superuser=False),
                sessions=tuple(self._sessions.values()),
                facts=Facts(advisory_lock_holders=frozenset(), waiters={}),
            )

    def _work(self) -> None:
        hour = (self._at // SECOND % _DAY) / _DAY
        daylight = 0.35 + 0.65 * max(math.sin(math.pi * (hour * 24 - 5) / 16), 0)
        for session in self._dice.sample(self._pool, round(len(self._pool) * self._busy * daylight)):
            self._use(session)

    def _use(self, session: SessionId) -> None:
        moment = Instant(self._at - self._dice.randrange(_EVERY * SECOND))
        state = ACTIVE if self._dice.random() < 0.1 else IDLE
        began = Instant(moment - self._dice.randrange(9_000))
        known = self._sessions[session]
        self._sessions[session] = replace(known, state=state, state_change=moment, query_start=began)

    def _come_and_go(self) -> None:
        dice = self._dice
        for session in [session for session, end in self._ends.items() if end <= self._at]:
            del self._ends[session], self._sessions[session]
        if dice.random() < _LEAKS_A_DAY * _EVERY / _DAY:
            name = dice.choice(["checkout", "checkout", "report-job", "console"])
            state = IN_TRANSACTION if name == "console" else IDLE
            lasts = round(dice.expovariate(1 / 14_400))
            self._ends[self._open(name, f"app_{name[:5]}", state)] = Instant(self._at + lasts * SECOND)
        for session in list(self._ends):
            if dice.random() < _EVERY / 90_000:
                self._use(session)
        if self._at // SECOND % 900 < _EVERY:
            for number in range(8):
                end = Instant(self._at + dice.randrange(30, 300) * SECOND)
                self._ends[self._open(f"cron-{number}", "batch")] = end

    def _open(self, application: str, role: str, state: str = IDLE) -> SessionId:
        self._pids += 1
        session = SessionId(self._pids, Instant(self._at - 5_000))
        client = f"10.2.{self._pids % 3}.{self._pids % 200 + 1}"
        self._sessions[session] = Session(
            id=session,
            identity=Identity("shop", role, application, client),
            role_oid=16_400,
            client_port=40_000 + self._pids % 20_000,
            state=state,
            state_change=self._at,
            query_start=Instant(self._at - 2_000),
            xact_start=Instant(self._at - 2_000) if state == IN_TRANSACTION else None,
            wait_event="ClientRead",
        )
        return session
