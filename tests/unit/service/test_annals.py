"""What cycles have noted between two readings is of one time: a clock that is set back begins another."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from reaper.policy.memory import Memory
from reaper.policy.session import Snapshot
from reaper.policy.time import Instant
from reaper.service.cycle import Cycle
from reaper.service.history import Annals
from tests.unit.policy.build import plan, session, snapshot

SEEN = snapshot(session())


class Writer:
    """Keeps what a history writer is told of earlier looks."""

    def __init__(self) -> None:
        self.looks: list[list[int]] = []

    def reading(self, _: Snapshot, marks: Sequence[Any]) -> None:
        self.looks.append([mark.at - SEEN.at for mark in marks])


def cycle(at: int) -> Cycle:
    seen = replace(SEEN, at=Instant(SEEN.at + at))
    return Cycle(name="1", snapshot=seen, plan=plan(seen), settled=(), memory=Memory())


@asynccontextmanager
async def hurrying(_: float) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("cycles", "reading", "told"),
    [
        ((1, 2, 3), 4, [1, 2, 3]),
        ((100, 101, 2, 3), 4, [2, 3]),
        ((100, 101), 4, []),
    ],
    ids=["a clock that goes on", "set back between two cycles", "set back before the reading"],
)
def test_looks_by_a_clock_that_was_set_back_are_none_of_the_reading(
    cycles: tuple[int, ...], reading: int, told: list[int]
) -> None:
    writer: Any = Writer()
    here: Any = SimpleNamespace(link=SimpleNamespace(hurrying=hurrying))

    async def observe(_: object) -> Snapshot:
        return replace(SEEN, at=Instant(SEEN.at + reading))

    async def scene() -> None:
        with ThreadPoolExecutor(1) as pool:
            annals = Annals(writer, pool, every=1.0, herald=SimpleNamespace())
            annals._observer = here, SimpleNamespace(observe=observe)  # type: ignore[assignment]
            for at in cycles:
                annals.cycled(cycle(at))
            await annals.look_first(here)

    asyncio.run(scene())
    assert writer.looks == [told]
