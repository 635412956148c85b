"""The reaper is killed at random moments, and its audit log is compared with the server's log at the end.

Several reapers work side by side, each with a database and an audit log of its own. SIGKILL comes while one
starts, at any moment, and most often just after intents were written, where intent, signal and outcome are
close together.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

from tests.lab.clients.sleepers import Sleepers
from tests.lab.judge.logs import AuditLog
from tests.lab.report import Report, figures
from tests.lab.world.server import lab_server

from .audit_file import INTENT_LINE, AuditedReaper, habits

_REAPERS: Final = 4
_WORTH_A_REAPER: Final = 10
_START: Final = 0.8
_ANY_TIME: Final = 0.1
_AFTER_INTENTS: Final = 0.01
_MAX_BATCHES: Final = 6
_ROTATE_AFTER: Final = 25
"""Each start reads the file from its beginning, so it is rotated after this many."""


class _Lane:
    """One reaper, which is killed and started again."""

    def __init__(self, reaper: AuditedReaper, seed: int) -> None:
        self.reaper = reaper
        self.crashes = Counter[str]()
        """The crashes, by what the run left in the audit log."""
        self._dice = Random(f"{seed} {reaper.name}")  # noqa: S311 (the same choices in every run)

    def run(self, kills: int) -> None:
        """Kill this many runs, and let another one end well."""
        for number in range(1, kills + 1):
            before = self._written()
            self.reaper.start()
            self._await_the_moment()
            self.reaper.kill()
            self.crashes[_left_behind(self._written()[len(before) :])] += 1
            if number % _ROTATE_AFTER == 0 and self.reaper.audit.exists():
                self.reaper.rotate()
        self.reaper.last_run()

    def _written(self) -> bytes:
        return self.reaper.audit.read_bytes() if self.reaper.audit.exists() else b""

    def _await_the_moment(self) -> None:
        chosen = self._dice.random()
        if chosen < 0.1:
            time.sleep(self._dice.uniform(0, _START))
            return
        self.reaper.await_lines(INTENT_LINE, self._dice.randrange(1, _MAX_BATCHES))
        time.sleep(self._dice.expovariate(1 / (_ANY_TIME if chosen < 0.3 else _AFTER_INTENTS)))


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
        lanes = [_Lane(AuditedReaper(server, place, f"lane{number}"), seed) for number in range(count)]
        sleepers = Sleepers(*(habits(server, lane.reaper.name, seed) for lane in lanes))
        with sleepers, ThreadPoolExecutor(count) as threads:
            for lane in lanes:
                stack.push(lane.reaper.__exit__)
            list(threads.map(_Lane.run, lanes, shares))
            sleepers.finish()
        for lane in lanes:
            log, ended, differences = lane.reaper.decided()
            counted.update(log.counted(ended))
            left.update(lane.crashes)
            broken += differences
    tables = [
        figures(f"Crash: {crashes:,} runs of `reaper run` ended by SIGKILL", counted),
        figures("What the run had left in its audit log", left),
    ]
    return Report(tables=tables, counted=counted, broken=broken)
