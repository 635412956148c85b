"""The reaper is killed at random moments, and its audit log is compared with the server's log at the end.

Several reapers work side by side, each with a database and an audit log of its own. SIGKILL comes while one
starts, at any moment, and most often just after intents were written, where intent, signal and outcome are
close together.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.lab.clients.session import SessionKey
from tests.lab.clients.sleepers import Sleepers
from tests.lab.judge.logs import AuditLog, TerminationByServer
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
_STAGES: Final = (
    "while it started",
    "between two cycles",
    "in the middle of a line",
    "intents written, nothing signalled",
    "some signalled, others not",
    "all signalled, outcomes missing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crash:
    """What one run left behind."""

    began: float
    acted: bool
    torn: bool
    left_open: Collection[SessionKey]

    def stage(self, ended: Mapping[SessionKey, float], next_began: float) -> str:
        """Where in its cycle the run was."""
        gone = [ended.get(key, next_began) < next_began for key in self.left_open]
        if self.torn:
            return _STAGES[2]
        if not gone:
            return _STAGES[1] if self.acted else _STAGES[0]
        return _STAGES[5] if all(gone) else _STAGES[4] if any(gone) else _STAGES[3]


class _Lane:
    """One reaper, which is killed and started again."""

    def __init__(self, reaper: AuditedReaper, seed: int) -> None:
        self.reaper = reaper
        self.crashes: list[_Crash] = []
        self._last_began = 0.0
        self._dice = Random(f"{seed} {reaper.name}")  # noqa: S311 (the same choices in every run)

    def run(self, kills: int) -> None:
        """Kill this many runs, and let another one end well."""
        for number in range(1, kills + 1):
            self._run_and_kill()
            if number % _ROTATE_AFTER == 0 and self.reaper.audit.exists():
                self.reaper.rotate()
        self._last_began = time.time()
        self.reaper.last_run()

    def _run_and_kill(self) -> None:
        reaper, began = self.reaper, time.time()
        before = reaper.audit.stat().st_size if reaper.audit.exists() else 0
        reaper.start()
        self._await_the_moment()
        reaper.kill()
        written = reaper.audit.read_bytes()[before:] if reaper.audit.exists() else b""
        log = AuditLog.of(written.splitlines(keepends=True))
        self.crashes.append(
            _Crash(
                began=began,
                acted=bool(log.intents),
                torn=bool(written) and not written.endswith(b"\n"),
                left_open=[intent.key for intent in log.open],
            )
        )

    def _await_the_moment(self) -> None:
        chosen = self._dice.random()
        if chosen < 0.1:
            time.sleep(self._dice.uniform(0, _START))
            return
        self.reaper.await_lines(INTENT_LINE, self._dice.randrange(1, _MAX_BATCHES))
        time.sleep(self._dice.expovariate(1 / (_ANY_TIME if chosen < 0.3 else _AFTER_INTENTS)))

    def stages(self, terminations: Collection[TerminationByServer]) -> Counter[str]:
        """Where in its cycle each run was when it was killed."""
        ended = {each.key: each.seconds for each in terminations}
        begins = [*(crash.began for crash in self.crashes), self._last_began]
        return Counter(
            crash.stage(ended, next_began) for crash, next_began in zip(self.crashes, begins[1:], strict=True)
        )


def crash(*, major: int, crashes: int = 1_000, seed: int = 20261120, keep: str = "") -> Report:
    """Kill the reaper at random moments; compare its audit log with the server's log."""
    count = min(_REAPERS, -(-crashes // _WORTH_A_REAPER))
    shares = [len(range(number, crashes, count)) for number in range(count)]
    counted, stages, broken = Counter[str](), Counter[str](), list[str]()
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
            log, ended, differences = lane.reaper.judged()
            counted.update(log.counted(ended))
            stages.update(lane.stages(ended))
            broken += differences
    tables = [
        figures(f"Crash: {crashes:,} runs of `reaper run` ended by SIGKILL", counted),
        figures("Where in its cycle it was", {stage: stages[stage] for stage in _STAGES}),
    ]
    return Report(tables=tables, counted=counted, broken=broken)
