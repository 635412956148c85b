"""The reaper is killed at random moments, and its audit log is compared with the server's log at the end.

Several reapers work side by side, each with a database and an audit log of its own. SIGKILL comes while one
starts, at any moment, and most often just after intents were written, where intent, signal and outcome are
close together. A full disk and a renamed audit log are among the faults.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Final

from tests.lab.clients.sleepers import Habits, Sleepers
from tests.lab.judge.logs import (
    COUNTS_SINCE,
    INTENT,
    AuditLog,
    TerminationByServer,
    sessions_killed,
    terminated,
)
from tests.lab.report import Report, figures
from tests.lab.world.observe import LineCounter
from tests.lab.world.reaper import NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import LabServer, lab_server
from tests.postgres.waiting import until

_REAPERS: Final = 4
_WORTH_A_REAPER: Final = 10
_START: Final = 0.8
_ANY_TIME: Final = 0.1
_AFTER_INTENTS: Final = 0.01
_MAX_BATCHES: Final = 6
_ROTATE_AFTER: Final = 25
"""Each start reads the file from its beginning, so it is rotated after this many."""
_IDLE_FOR: Final = 0.02
_POLL: Final = 0.0005
_PATIENCE: Final = 120.0
_INTENT_LINE: Final = f'"event": "{INTENT}"'.encode()


class _CrashingReaper(ReaperProcess):
    """A reaper that is killed and started again, and writes one audit log."""

    def __init__(self, server: LabServer, folder: Path, name: str, seed: int) -> None:
        sleepers = policy("sleepers", _IDLE_FOR, application=[f"{name}.*"], keys=NO_LIMITS)
        text = rules(server.database(name), sleepers, interval=1, min_interval=0.01, name=name)
        super().__init__(folder / name, text)
        self.name = name
        self.left = Counter[str]()
        """The crashes, by what the run left in the audit log."""
        self._server = server
        self._rotated: list[Path] = []
        self._dice = Random(f"{seed} {name}")  # noqa: S311 (the same choices in every run)

    def work(self, kills: int) -> None:
        """Kill this many runs, and let another one end well."""
        for number in range(1, kills + 1):
            before = len(self._written())
            self.start()
            self._await_the_moment()
            code = self.end(SIGKILL)
            assert code == -SIGKILL, f"it had ended by itself, with {code}"
            self.left[_left_behind(self._written()[before:])] += 1
            if number % _ROTATE_AFTER == 0 and self.audit.exists():
                self._rotated.append(self.audit.rename(f"{self.audit}-{number:08}"))
        self.start()
        self._await_intents(1)  # what was left open is settled by then, and signals are handled
        code = self.end()
        assert code == 0, f"it ended with {code}"

    def _written(self) -> bytes:
        return self.audit.read_bytes() if self.audit.exists() else b""

    def _await_the_moment(self) -> None:
        chosen = self._dice.random()
        if chosen < 0.1:
            time.sleep(self._dice.uniform(0, _START))
            return
        self._await_intents(self._dice.randrange(1, _MAX_BATCHES))
        time.sleep(self._dice.expovariate(1 / (_ANY_TIME if chosen < 0.3 else _AFTER_INTENTS)))

    def _await_intents(self, times: int) -> None:
        """Return as soon as intents were written this many times from now on."""
        counter = LineCounter(self.audit, _INTENT_LINE)
        for _ in range(times):
            until(partial(self._is_more, counter, counter.count()), within=_PATIENCE, every=_POLL)

    def _is_more(self, counter: LineCounter, before: int) -> bool:
        assert self.running, f"{self.name} has ended by itself"
        return counter.count() > before

    def judged(self) -> tuple[AuditLog, list[TerminationByServer], list[str]]:
        """The audit log, the terminations by the server's log, and everything in which they differ."""
        ended = terminated(self._server, f"{self.name}.")
        log = AuditLog.read(*self._rotated, self.audit)
        broken = [*log.disagreements(ended), *self._counter_differs(len(ended)), *self._complaints()]
        if log.missing:
            broken.append(f"{log.missing} lines are missing")
        return log, ended, [f"{self.name}: {what}" for what in broken]

    def _counter_differs(self, ended: int) -> list[str]:
        if self._server.major < COUNTS_SINCE:
            return []
        try:
            until(lambda: sessions_killed(self._server, self.name) == ended)
        except TimeoutError:
            return [f"the server counts {sessions_killed(self._server, self.name)} terminations, not {ended}"]
        return []

    def _complaints(self) -> list[str]:
        """What `reaper audit` finds wrong, with the server's log as evidence."""
        log, evidence = str(self.audit), ("--server-log", str(self._server.csv_log))
        commands = (("verify", log), ("reconcile", log, *evidence))
        answers = {name: self.command("audit", name, *arguments) for name, *arguments in commands}
        return [f"reaper audit {name}: {done.out}{done.err}" for name, done in answers.items() if done.code]


def _left_behind(written: bytes) -> str:
    log = AuditLog.of(written.splitlines(keepends=True))
    if written and not written.endswith(b"\n"):
        return "a torn line"
    return "intents without an outcome" if log.open else "no open intent" if log.intents else "no intent"


def crash(*, major: int, crashes: int = 1_000, seed: int = 20261120, keep: str = "") -> Report:
    """Kill the reaper at random moments; compare its audit log with the server's log."""
    count = min(_REAPERS, -(-crashes // _WORTH_A_REAPER))
    shares = [len(range(number, crashes, count)) for number in range(count)]
    counted, left, broken = Counter[str](), Counter[str](), list[str]()
    with lab_server(major, max_connections="200") as (server, folder), ExitStack() as stack:
        place = Path(keep) if keep else folder
        reapers = [_CrashingReaper(server, place, f"lane{number}", seed) for number in range(count)]
        # A dozen sessions each, which are mostly terminated and sometimes wake up.
        habits = [
            Habits(socket=server.socket, database=each.name, name=each.name, count=12, seed=seed)
            for each in reapers
        ]
        with Sleepers(*habits) as sleepers, ThreadPoolExecutor(count) as threads:
            for reaper in reapers:
                stack.push(reaper.__exit__)
            list(threads.map(_CrashingReaper.work, reapers, shares))
            sleepers.finish()
        for reaper in reapers:
            log, ended, differences = reaper.judged()
            counted.update(log.counted(ended))
            left.update(reaper.left)
            broken += differences
    tables = [
        figures(f"Crash: {crashes:,} runs of `reaper run` ended by SIGKILL", counted),
        figures("What the run had left in its audit log", left),
    ]
    return Report(tables=tables, counted=counted, broken=broken)
