"""The campaign: round after round, one fault or two at once, each mended, and a look whether all goes on."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from .contract import Excuse, Fault
from .load import PROBE
from .patience import until
from .replica import PAGES, Replica
from .server_log import Who
from .wire import NOW, Deposition, NotServed
from .world import World

PATIENCE: Final = 180.0
"""Seconds; after the longest back-off of a reaper it is still back far sooner."""
_HELD: Final = (0.3, 3.0)
_APART: Final = (0.0, 2.0)
_PAIRS: Final = 0.4
_BY_COMMAND: Final = "57P01"

NewFault = Callable[[], Fault]


@dataclass(slots=True, kw_only=True)
class Round:
    """What was done, and what came of it."""

    number: int
    faults: Sequence[str]
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    back_after: float | None = None
    """Seconds from the last mending to the end of a freshly leaked session, its limit left out."""
    troubles: list[str] = field(default_factory=list)
    """What did not go on by itself."""


def draws(kinds: Sequence[NewFault], dice: Random) -> list[list[NewFault]]:
    """Every fault once, in a random order, and some of them with another one at the same time."""
    drawn = []
    order = dice.sample(kinds, len(kinds))
    while order:
        chosen = [order.pop()]
        if dice.random() < _PAIRS:
            others = [each for each in kinds if not each().touches & chosen[0]().touches]
            chosen += dice.sample(others, min(1, len(others)))
        drawn.append(chosen)
    return drawn


async def rounds(world: World, kinds: Sequence[NewFault], dice: Random) -> AsyncIterator[Round]:
    """Strike for ever; whoever has seen enough stops asking."""
    number = 0
    await _settled(world, Round(number=0, faults=()))
    while True:
        for chosen in draws(kinds, dice):
            world.check()
            number += 1
            yield await _round(world, number, [new() for new in chosen], dice)


async def _round(world: World, number: int, faults: Sequence[Fault], dice: Random) -> Round:
    this = Round(number=number, faults=[fault.name for fault in faults])
    before = {replica.name: len(replica.ends) for replica in world.reapers}
    unfelt_before = _unfelt(world)
    excused = any(Excuse.ENDS_REAPERS in fault.excuse for fault in faults)
    for replica in world.reapers:
        replica.excused += excused
    try:
        async with asyncio.TaskGroup() as group:
            for order, fault in enumerate(faults):
                offset = dice.uniform(*_APART) if order else 0.0
                group.create_task(_strike(world, fault, offset, dice.uniform(*_HELD)), name=fault.name)
        await _settled(world, this)
    finally:
        for replica in world.reapers:
            replica.excused = max(0, replica.excused - excused)
    if len(faults) == 1:  # another one may have been in the way
        this.troubles += [f"{what}: no reaper has said so" for what in _unfelt(world) - unfelt_before]
    for replica in world.reapers:
        this.troubles += _ends(replica, before.get(replica.name, 0))
        if replica.in_service:
            await replica.sample()
    this.ended = time.time()
    return this


def _unfelt(world: World) -> Counter[str]:
    return Counter({what: number for (what, felt), number in world.felt.items() if not felt})


async def _strike(world: World, fault: Fault, offset: float, held: float) -> None:
    await asyncio.sleep(offset)
    try:
        await fault.inflict(world)
        await asyncio.sleep(held)
    except TimeoutError:
        # What it waited for did not come. Held against the reaper, unless another fault was in the way.
        world.felt[f"{fault.name}: struck to its end", False] += 1
    finally:
        await fault.mend(world)


async def _settled(world: World, this: Round) -> None:
    """After the mending: a fresh leak is terminated, and every reaper says that it is well."""
    mended = time.monotonic()
    this.back_after = await _back_after(world, mended)
    if this.back_after is None:
        this.troubles.append(f"a fresh leak was still there {PATIENCE:g} s after the mending")
    if left := await _left_over(world):
        kinds = Counter(each.kind for each in left)
        this.troubles.append(f"overdue, and left alone for {PATIENCE:g} s: {dict(kinds)}")
    for replica in world.reapers:
        if replica.in_service and (trouble := await _unwell(replica)):
            this.troubles.append(trouble)


async def _back_after(world: World, since: float) -> float | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    line = await world.load.open("probe", PROBE)
                except NotServed:
                    await asyncio.sleep(0.1)
                    continue
                try:
                    await line.ask(f"SELECT {NOW}")
                    idle_since = time.monotonic()
                    await line.ended.wait()
                except NotServed:
                    continue
                finally:
                    await line.close()
                said = line.deposition
                if said.sqlstate == _BY_COMMAND and Who(said.began, said.pid) not in world.by_others:
                    overdue = (said.ended_at or 0.0) - idle_since - (PROBE.limit or 0.0)
                    return idle_since - since + overdue
    return None


async def _left_over(world: World) -> list[Deposition]:
    """Who is overdue now and still is, unused, after a long time."""
    now = time.monotonic()
    overdue = {
        id(each): each.told_at
        for each in world.load.present
        if each.limit is not None and now - each.told_at > each.limit
    }

    def left() -> list[Deposition]:
        return [each for each in world.load.present if overdue.get(id(each)) == each.told_at]

    with suppress(TimeoutError):
        await until(lambda: not left(), within=PATIENCE)
    return left()


async def _unwell(replica: Replica) -> str:
    page, status, said = "", 0, ""
    pages = ("livez", "readyz", *PAGES)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for page in pages:
            status, said = await replica.page(page)
            if status != 200:
                break
        else:
            return ""
        await asyncio.sleep(0.2)
    return f"{replica.name}: /{page} says {status}: {said}"


def _ends(replica: Replica, known: int) -> list[str]:
    return [
        f"{replica.name} ended by itself with {end.code}" for end in replica.ends[known:] if not end.expected
    ]
