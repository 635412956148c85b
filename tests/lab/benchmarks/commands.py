"""What commands cost: starting one, and a backtest of invented traffic."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
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
from reaper.policy.time import SECOND, Duration, Timestamp
from tests.lab.clients.sleepers import ROOT
from tests.lab.report import figure, milliseconds, quantile, table
from tests.lab.world.reaper import policy
from tests.system.command import find
from tests.system.policies import FILE, policy_file

_PYTHON: Final = "python -c pass"


class _CommandCost(NamedTuple):
    """CPU seconds, user and system, and resident memory in MiB."""

    cpu: float
    rss: float


def _run(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> _CommandCost:
    """Run a command to its end; return its cost."""
    program = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    assert program.returncode == 0, words
    return _CommandCost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def start(*, major: int, runs: int = 15) -> Iterator[str]:  # noqa: ARG001 (no server takes part)
    """CPU of starting a command, beside that of Python itself.

    All commands take turns. They run from bytecode that exists already, as in an installed package.
    """
    with TemporaryDirectory() as folder, TemporaryDirectory() as bytecode:
        commands = _commands(Path(folder))
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        costs: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(runs + 1):
            for name, (place, *words) in commands.items():
                cpu = _run(Path(folder, place), *words, environment=environment).cpu
                costs[name] += [cpu] if number else []  # after the first run all files are in memory
    python = median(costs[_PYTHON])
    rows = [
        (
            name,
            *(milliseconds(each, 0) for each in (median(taken), min(taken), quantile(taken, 0.9))),
            f"{median(taken) / python:.1f}",
        )
        for name, taken in costs.items()
    ]
    title = f"Start: user and system CPU of {runs} runs each, in turns"
    yield table(title, ("", "CPU, median", "least", "p90", "to python"), rows)


def _commands(folder: Path) -> Mapping[str, Sequence[str]]:
    """Commands by name: the folder, and the words."""
    shipped = (ROOT / FILE).read_text(encoding="utf-8")
    for place, text in (("shipped", shipped), ("small", policy_file(policy("leaked", 1, role=["app"])))):
        (folder / place).mkdir()
        (folder / place / FILE).write_text(text, encoding="utf-8")
    reaper = find("reaper")
    return {
        _PYTHON: ("small", sys.executable, "-c", "pass"),
        "reaper --help": ("small", reaper, "--help"),
        "reaper check, the shipped file": ("shipped", reaper, "check", "--offline"),
        "reaper check, a file without servers": ("small", reaper, "check", "--offline"),
    }


_EVERY: Final = 10
_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR
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
_POOLS: Final = 6
_LEAKS_A_DAY: Final = 150


def backtest(
    *,
    major: int,  # noqa: ARG001 (no server takes part)
    hours: tuple[float, ...] = (24.0, 168.0),
    active: tuple[int, ...] = (10, 2, 33),
    members: int = 80,
) -> Iterator[str]:
    """Sessions a second in a backtest, and its memory by the length of the history.

    Each share (percent) of sessions at work in the first length; the first share in all lengths.
    """
    pairs = [*((share, hours[0]) for share in active), *((active[0], length) for length in hours[1:])]
    yield table(
        f"Backtest: three policies and a history with a snapshot every {_EVERY} s, by the command;\n"
        "at work are sessions that did something since the snapshot before, at noon",
        ("", "snapshots", "sessions", "observed", "a day's files", "written in", "CPU", "a second", "RSS"),
        [_backtest_row(_Traffic(members, share / 100), share, length) for share, length in pairs],
    )


def _backtest_row(traffic: "_Traffic", share: int, hours: float) -> Sequence[str]:
    snapshots = round(hours * _HOUR / _EVERY)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        observed, writing = _write(folder / "history", traffic, snapshots)
        packed = sum(path.stat().st_size for path in (folder / "history").iterdir())
        (folder / FILE).write_text(_POLICIES, encoding="utf-8")
        empty = _run(folder, find("reaper"), "check", "--offline")
        cost = _run(folder, find("reaper"), "backtest", "--history", "history")
    return (
        f"{share} % at work",
        f"{snapshots:,}",
        f"{observed / snapshots:,.0f}",
        f"{observed:,}",
        figure(packed / _MEBIBYTE * 24 / hours, "MiB"),
        milliseconds(writing / snapshots, 2),
        figure(cost.cpu, "s", 2),
        f"{observed / max(cost.cpu - empty.cpu, 0.01):,.0f}",
        figure(cost.rss, "MiB", 1),
    )


def _write(folder: Path, traffic: "_Traffic", snapshots: int) -> tuple[int, float]:
    """Write a history; return how many sessions were observed, and the CPU."""
    limits = HistoryLimits(max_bytes=2**40, keep_for=Duration(36_500 * _DAY * SECOND))
    options = HistoryOptions(folder=HistoryFolder(folder, limits), every=Duration(_EVERY * SECOND))
    writer = HistoryWriter(options, "orders")
    observed, took = 0, 0.0
    for snapshot in traffic.snapshots(snapshots):
        observed += len(snapshot.sessions)
        began = time.process_time()
        writer.write(snapshot)
        took += time.process_time() - began
    writer.close()
    return observed, took


class _Traffic:
    """The sessions of one server: pools at work by day, and leaks of all kinds that end after hours."""

    def __init__(self, members: int, busy: float) -> None:
        self._busy = busy
        """The share of a pool's members that did something since the snapshot before."""
        self._slots = _POOLS * members * 5 // 4
        self._dice = Random(7)  # noqa: S311 (the same traffic each time)
        self._at = Timestamp(_BEGAN)
        self._pids = 100
        self._sessions: dict[SessionId, Session] = {}
        self._ends: dict[SessionId, Timestamp] = {}
        self._pool = [self._open(f"web-{n % _POOLS}", f"app_{n % _POOLS}") for n in range(members * _POOLS)]

    def snapshots(self, count: int) -> Iterator[Snapshot]:
        """Snapshots, one after the other."""
        for _ in range(count):
            self._at = Timestamp(self._at + _EVERY * SECOND)
            self._work()
            self._leak()
            yield Snapshot(
                server="orders",
                at=self._at,
                slots=Slots(total=self._slots, reserved=3, used=len(self._sessions)),
                watcher=Watcher(pid=1, role="reaper", superuser=False),
                sessions=tuple(self._sessions.values()),
                facts=Facts(advisory_lock_holders=frozenset(), waiters={}),
            )

    def _work(self) -> None:
        hour = (self._at // SECOND % _DAY) / _HOUR
        daylight = 0.35 + 0.65 * max(math.sin(math.pi * (hour - 5) / 16), 0)
        for session in self._dice.sample(self._pool, round(len(self._pool) * self._busy * daylight)):
            moment = Timestamp(self._at - self._dice.randrange(_EVERY * SECOND))
            state = ACTIVE if self._dice.random() < 0.1 else IDLE
            known = self._sessions[session]
            self._sessions[session] = replace(known, state=state, state_change=moment, query_start=moment)

    def _leak(self) -> None:
        for session in [session for session, end in self._ends.items() if end <= self._at]:
            del self._ends[session], self._sessions[session]
        if self._dice.random() < _LEAKS_A_DAY * _EVERY / _DAY:
            name = self._dice.choice(["checkout", "checkout", "report-job", "console"])
            state = IN_TRANSACTION if name == "console" else IDLE
            lasts = round(self._dice.expovariate(1 / (4 * _HOUR)))
            self._ends[self._open(name, f"app_{name[:5]}", state)] = Timestamp(self._at + lasts * SECOND)

    def _open(self, application: str, role: str, state: str = IDLE) -> SessionId:
        self._pids += 1
        session = SessionId(self._pids, Timestamp(self._at - 5_000))
        client = f"10.2.{self._pids % 3}.{self._pids % 200 + 1}"
        self._sessions[session] = Session(
            id=session,
            identity=Identity("shop", role, application, client),
            role_oid=16_400,
            client_port=40_000 + self._pids % 20_000,
            state=state,
            state_change=self._at,
            query_start=self._at,
            xact_start=self._at if state == IN_TRANSACTION else None,
            wait_event="ClientRead",
        )
        return session
