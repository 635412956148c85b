"""The reaper is killed at random instants, a thousand times: what does its record say in the end?

Life follows life, in lanes side by side, each at a database and with a record of its own. SIGKILL strikes
while one starts, at any moment, and most often just after intents were seen to be written: there intent,
signal and outcome lie close together. A tool that logs afterwards is treated alike, for comparison.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Final

from reaper.audit.events import INTENT, Event
from reaper.audit.reader import open_intents, read_events
from tests.lab.benchmarks.ground import Ground

from .crowds import Crowds
from .log_after import LogAfter
from .patrol import INTENT_LINE, Patrol, crowd_of
from .report import Report, figures
from .witness import deaths

_LANES: Final = 4
_LIVES: Final = 10
"""Fewer are not worth a lane of their own."""
_OTHER: Final = "logafter"
_OTHERS_SHARE: Final = 5
_START: Final = 0.8
_ANY_TIME: Final = 0.1
_AFTER_INTENTS: Final = 0.01
_MOST_BATCHES: Final = 6
_KEPT: Final = 25
"""The record is rotated after so many lives, for every life reads it from the start."""
_STAGES: Final = (
    "while it started",
    "between two cycles",
    "in the middle of a line",
    "intents written, nobody signalled",
    "some signalled, others not",
    "all signalled, outcomes missing",
)


class _Moment(Enum):
    """When SIGKILL strikes."""

    STARTING = auto()
    ANY = auto()
    ACTING = auto()


_MOMENTS: Final = tuple(_Moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crash:
    """What a life left behind."""

    began: float
    acted: bool
    torn: bool
    left_open: Sequence[str]
    """The sessions whose intents have no outcome."""

    def stage(self, died: Mapping[str, float], until_next: float) -> str:
        """Where in its cycle it was."""
        gone = [died.get(name, until_next) < until_next for name in self.left_open]
        if self.torn:
            return _STAGES[2]
        if not gone:
            return _STAGES[1] if self.acted else _STAGES[0]
        return _STAGES[5] if all(gone) else _STAGES[4] if any(gone) else _STAGES[3]


class _Lane:
    """Life after life."""

    def __init__(self, patrol: Patrol, seed: int) -> None:
        self.patrol = patrol
        self.crashes: list[_Crash] = []
        self.retired = 0.0
        self._dice = Random(f"{seed} {patrol.name}")  # noqa: S311 (the same choices in every run)

    def run(self, crashes: int) -> None:
        """So many lives that end badly, and one that ends well."""
        for number in range(1, crashes + 1):
            self._live_and_crash()
            if number % _KEPT == 0 and self.patrol.record.exists():
                self.patrol.rotate()
        self.retired = time.time()
        self.patrol.retire()

    def _live_and_crash(self) -> None:
        patrol, began = self.patrol, time.time()
        before = patrol.record.stat().st_size if patrol.record.exists() else 0
        patrol.daemon.start()
        self._await_the_moment()
        patrol.crash()
        events, torn = _written(patrol.record, before)
        self.crashes.append(
            _Crash(
                began=began,
                acted=any(event.name == INTENT for event in events),
                torn=torn,
                left_open=[str(event.text("application")) for event in open_intents(events)],
            )
        )

    def _await_the_moment(self) -> None:
        (moment,) = self._dice.choices(_MOMENTS, weights=(1, 2, 7))
        if moment is _Moment.STARTING:
            time.sleep(self._dice.uniform(0, _START))
            return
        self.patrol.awaits(INTENT_LINE, self._dice.randrange(1, _MOST_BATCHES))
        time.sleep(self._dice.expovariate(1 / (_ANY_TIME if moment is _Moment.ANY else _AFTER_INTENTS)))

    def stages(self, died: Mapping[str, float]) -> Counter[str]:
        """Where in its cycle each life was when it ended."""
        begins = [*(crash.began for crash in self.crashes), self.retired]
        return Counter(
            crash.stage(died, until_next) for crash, until_next in zip(self.crashes, begins[1:], strict=True)
        )


def crash(*, crashes: int, seed: int, major: int, keep: Path | None = None) -> Report:
    """Let so many lives of the reaper end by SIGKILL, and compare its record with what the server says."""
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ground = stack.enter_context(Ground(major, max_connections="200"))
        ground.role("app")
        lanes = [
            _Lane(Patrol(ground, folder, f"lane{n}"), seed) for n in range(min(_LANES, -(-crashes // _LIVES)))
        ]
        other = LogAfter(ground.database(_OTHER, user="postgres"), _OTHER, folder / _OTHER, seed)
        crowd = Crowds(
            *(crowd_of(ground, name, seed) for name in (*(lane.patrol.name for lane in lanes), _OTHER))
        )
        shares = [len(range(n, crashes, len(lanes))) for n in range(len(lanes))]
        with crowd, ExitStack() as lives, ThreadPoolExecutor(len(lanes) + 1) as crew:
            for lane in lanes:
                lives.push(lane.patrol.daemon)
            beside = crew.submit(other.run, -(-crashes // _OTHERS_SHARE))
            list(crew.map(_Lane.run, lanes, shares))
            beside.result()
            crowd.told()
        return _judged(lanes, other, ground)


def _written(record: Path, since: int) -> tuple[list[Event], bool]:
    """The events that this life has written, and whether it died over the last one."""
    data = record.read_bytes()[since:] if record.exists() else b""
    events = [event for event in read_events(BytesIO(data)) if isinstance(event, Event)]
    return events, bool(data) and not data.endswith(b"\n")


def _judged(lanes: Sequence[_Lane], other: LogAfter, ground: Ground) -> Report:
    died = {death.application: death.at for death in deaths(ground.server.log_path)}
    counted, broken, stages = Counter[str](), list[str](), Counter[str]()
    for lane in lanes:
        account, told = lane.patrol.judged()
        stages.update(lane.stages(died))
        counted.update(account.counted(lane.patrol.died()))
        broken += told
    crashes = sum(len(lane.crashes) for lane in lanes)
    return Report(
        tables=[
            figures(f"Crash: {crashes:,} lives of `reaper run` ended by SIGKILL", counted),
            figures(
                f"The other order: {other.crashes:,} lives of a tool that logs afterwards",
                _others(other, died),
            ),
            figures("Where in its cycle it was", {stage: stages[stage] for stage in _STAGES}),
        ],
        counted=counted,
        broken=broken,
    )


def _others(other: LogAfter, died: Collection[str]) -> Mapping[str, int]:
    here = {who for who in died if who.startswith(f"{other.name}.")}
    return {
        "sessions terminated, by the server's log": len(here),
        "of these in no log": len(here - other.logged),
    }
