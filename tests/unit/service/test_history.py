"""The cycles that are recorded with a history snapshot are not later than it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reaper.history.read import HistoryReader
from reaper.history.write import HistoryFolder, HistoryOptions, history_files
from reaper.policy.memory import Memory
from reaper.policy.session import Snapshot
from reaper.policy.time import Timestamp
from reaper.service.cycle import Cycle
from reaper.service.history import HistoryRecorder
from tests.unit.history.histories import EVERY, ROOMY
from tests.unit.policy.build import plan, session, snapshot

FIRST = snapshot(session())


def observed(at: int) -> Snapshot:
    return replace(FIRST, at=Timestamp(FIRST.at + at))


def cycle(at: int) -> Cycle:
    return Cycle(name="1", snapshot=observed(at), plan=plan(observed(at)), settled=(), memory=Memory())


@asynccontextmanager
async def hurrying(_: float) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("cycles", "recorded", "marks"),
    [
        ((1, 2, 3), 4, [1, 2, 3]),
        ((100, 101, 2, 3), 4, [2, 3]),
        ((100, 101), 4, []),
    ],
    ids=["a clock that goes on", "set back between two cycles", "set back before the snapshot"],
)
def test_cycles_before_the_clock_was_set_back_are_left_out(
    tmp_path: Path, cycles: tuple[int, ...], recorded: int, marks: list[int]
) -> None:
    here: Any = SimpleNamespace(connection=SimpleNamespace(hurrying=hurrying))

    async def observe(_: object) -> Snapshot:
        return observed(recorded)

    async def scene() -> None:
        options = HistoryOptions(folder=HistoryFolder(tmp_path, ROOMY), every=EVERY)
        recorder = HistoryRecorder(options, "orders", SimpleNamespace())
        recorder._observer = here, SimpleNamespace(observe=observe)  # type: ignore[assignment]
        for at in cycles:
            recorder.note_cycle(cycle(at))
        await recorder.record_first(here)
        await recorder.end()

    asyncio.run(scene())
    (found,) = HistoryReader(history_files(tmp_path), print).snapshots()
    assert [mark.at - FIRST.at for mark in found.cycles] == marks
