"""Faults, and rounds of them: one or two at once, the repair, and the check that everything continues."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from random import Random
from typing import Any, Final

from tests.lab.clients.kinds import PROBE
from tests.lab.clients.session import TERMINATED, NotServed, SessionAccount
from tests.lab.world.isolation import Isolation
from tests.lab.world.observe import wait_until

from .supervised import PAGES, SupervisedReaper
from .world import LIMIT, FaultWorld

Strike = Callable[[FaultWorld], AsyncIterator[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that fails and is repaired.

    Two faults may overlap in any way unless they touch the same thing. The repair undoes everything, also
    when the fault itself has failed halfway, and may take long.
    """

    name: str
    touches: frozenset[str]
    """What it needs for itself: `server`, `reaper`, `role`, `link`, `policies`, `audit`, `slots`, `clock`."""
    strike: Strike
    _: KW_ONLY
    may_end_reapers: bool = False
    """True if a reaper may end by itself, because its start is impossible meanwhile."""
    missing: Callable[[Isolation], str] = lambda _: ""
    """What this machine lacks for it; empty if it is possible."""
    prepare: Callable[[], Any] = lambda: None
    """Fetches what it needs, while the host's network is still available."""


def fault(name: str, *touches: str, **options: Any) -> Callable[[Strike], Fault]:  # noqa: ANN401 (fields)
    """Make a fault of a generator."""
    return lambda strike: Fault(name, frozenset(touches), strike, **options)


PATIENCE: Final = 180.0
"""Seconds: far longer than the longest pause between two attempts to connect."""
_HELD: Final = (0.3, 3.0)
_APART: Final = (0.0, 2.0)
_PAIRS: Final = 0.4
_RETRY: Final = 0.1


@dataclass(slots=True, kw_only=True)
class Round:
    """One round and its result."""

    number: int = 0
    faults: Sequence[str] = ()
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    back_after: float | None = None
    """Seconds from the repair to the end of a new leak, its limit subtracted."""
    problems: list[str] = field(default_factory=list)
    """What did not continue by itself."""


async def rounds(world: FaultWorld, faults: Sequence[Fault], dice: Random) -> AsyncIterator[Round]:
    """Rounds without end."""
    number = 0
    await _settle(world, Round())
    while True:
        for chosen in _draw(faults, dice):
            if world.load.done():
                world.load.result()
            number += 1
            yield await _round(world, number, chosen, dice)


def _draw(faults: Sequence[Fault], dice: Random) -> list[list[Fault]]:
    """Every fault once, in random order, some together with another one."""
    drawn = []
    for each in dice.sample(faults, len(faults)):
        chosen = [each]
        if dice.random() < _PAIRS:
            others = [other for other in faults if not other.touches & each.touches]
            chosen += dice.sample(others, min(1, len(others)))
        drawn.append(chosen)
    return drawn


async def _round(world: FaultWorld, number: int, faults: Sequence[Fault], dice: Random) -> Round:
    this = Round(number=number, faults=[each.name for each in faults])
    ends = {reaper.name: len(reaper.ends) for reaper in world.reapers}
    unnoticed = _unnoticed(world)
    permitted = any(each.may_end_reapers for each in faults)
    for reaper in world.reapers:
        reaper.permitted_to_end += permitted
    try:
        async with asyncio.TaskGroup() as group:
            for order, each in enumerate(faults):
                offset = dice.uniform(*_APART) if order else 0.0
                group.create_task(_strike(world, each, offset, dice.uniform(*_HELD)), name=each.name)
        await _settle(world, this)
    finally:
        for reaper in world.reapers:
            reaper.permitted_to_end = max(0, reaper.permitted_to_end - permitted)
    if len(faults) == 1:  # another fault may have prevented that it was noticed
        this.problems += [f"{what}: no reaper has logged it" for what in _unnoticed(world) - unnoticed]
    for reaper in world.reapers:
        new = reaper.ends[ends.get(reaper.name, 0) :]
        this.problems += [f"{reaper.name} ended by itself with {end.code}" for end in new if not end.expected]
        if reaper.in_service:
            reaper.sample()
    this.ended = time.time()
    return this


def _unnoticed(world: FaultWorld) -> Counter[str]:
    return Counter({what: number for (what, noticed), number in world.noticed.items() if not noticed})


async def _strike(world: FaultWorld, fault: Fault, offset: float, held: float) -> None:
    await asyncio.sleep(offset)
    try:
        async with asynccontextmanager(fault.strike)(world):
            await asyncio.sleep(held)
    except TimeoutError:
        # Something that the fault waited for did not come: a problem, unless there was another fault.
        world.noticed[f"{fault.name}: happened completely", False] += 1


async def _settle(world: FaultWorld, this: Round) -> None:
    """After the repair a new leak is terminated, overdue sessions too, and every page answers."""
    this.back_after = await _back_after(world, time.monotonic())
    if this.back_after is None:
        this.problems.append(f"a new leak was still there {PATIENCE:g} s after the repair")
    if left := await _left_over(world):
        kinds = dict(Counter(each.kind for each in left))
        this.problems.append(f"overdue, and not terminated for {PATIENCE:g} s: {kinds}")
    for reaper in world.reapers:
        if reaper.in_service and (problem := await _page_problem(reaper)):
            this.problems.append(problem)


async def _back_after(world: FaultWorld, since: float) -> float | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(NotServed):
                    session = await world.clients.open("probe", PROBE)
                    try:
                        await session.use()
                        await session.ended.wait()
                    finally:
                        session.close()
                    account = session.account
                    if account.sqlstate == TERMINATED:
                        return (account.ended_at or 0.0) - since - LIMIT
                await asyncio.sleep(_RETRY)
    return None


async def _left_over(world: FaultWorld) -> list[SessionAccount]:
    """The sessions that are overdue now, and still are after a long time."""
    now = time.monotonic()
    overdue = {
        id(each): each.last.answered
        for each in world.clients.present
        if each.limit is not None and now - each.last.answered > each.limit
    }

    def left() -> list[SessionAccount]:
        return [each for each in world.clients.present if overdue.get(id(each)) == each.last.answered]

    with suppress(TimeoutError):
        await wait_until(lambda: not left(), within=PATIENCE)
    return left()


async def _page_problem(reaper: SupervisedReaper) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        answers = {page: await reaper.page(page) for page in ("livez", "readyz", *PAGES)}
        bad = [
            f"/{page} answers {each.status}: {each.text}"
            for page, each in answers.items()
            if each.status != 200
        ]
        if not bad or time.monotonic() > deadline:
            return f"{reaper.name}: {bad[0]}" if bad else ""
        await asyncio.sleep(2 * _RETRY)
