"""The load: clients of every kind, each behaving as its kind does, for as long as the campaign lasts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from .wire import NOW, Deposition, Line, NotServed

LIMIT: Final = 1.5
"""Seconds for which a session may be idle, or idle in its transaction."""

_CLOCK: Final = f"SELECT {NOW}"
_CLOCK_AFTER: Final = _CLOCK + " FROM pg_sleep({})"
_ASIDE: Final = (0.05, 0.5)
"""How long a client rests that was not served, or whose session was taken away."""


class Habit:
    """What the clients of a kind go by: their session, and the dice of their own."""

    def __init__(self, line: Line, dice: Random) -> None:
        self.line = line
        self.dice = dice

    async def rest(self, shortest: float, longest: float) -> None:
        """Leave the session alone for so many limits, unless it ends meanwhile."""
        await self.idle(LIMIT * self.dice.uniform(shortest, longest))

    async def idle(self, seconds: float | None = None) -> None:
        """Leave the session alone for so long, or for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.line.ended.wait()
        if self.line.ended.is_set():
            raise NotServed(self.line.deposition.sqlstate)


async def _pooled(habit: Habit) -> None:
    """In use: think times well below the limit, statements short and long, transactions that go on."""
    while True:
        await habit.rest(0.0, 0.6)
        if habit.dice.random() < 0.3:
            await habit.line.ask(_CLOCK_AFTER.format(habit.dice.uniform(0, 1.5 * LIMIT)))
        await habit.line.ask(_CLOCK)
        if habit.dice.random() < 0.3:
            await habit.line.ask(f"BEGIN; {_CLOCK}")
            for _ in range(habit.dice.randrange(4)):
                await habit.rest(0.1, 0.6)
                await habit.line.ask(_CLOCK)
            await habit.line.ask(f"COMMIT; {_CLOCK}")


async def _leaked(habit: Habit) -> None:
    await habit.line.ask(_CLOCK)
    await habit.idle()


async def _forgotten(habit: Habit) -> None:
    await habit.line.ask(f"BEGIN; {_CLOCK}")
    await habit.idle()


async def _napping(habit: Habit) -> None:
    """Wakes up at random, most often about the moment when its time is over."""
    while True:
        await habit.line.ask(_CLOCK)
        await habit.rest(0.9, 1.05)


async def _visiting(habit: Habit) -> None:
    """Comes and goes like cron; one in three forgets to go."""
    for _ in range(habit.dice.randrange(1, 4)):
        await habit.line.ask(_CLOCK)
        await habit.rest(0.0, 0.3)
    if habit.dice.random() < 0.35:
        await habit.idle()


async def _seldom(habit: Habit) -> None:
    while True:
        await habit.line.ask(_CLOCK)
        await habit.rest(3.0, 30.0)


async def _listening(habit: Habit) -> None:
    await habit.line.tell("LISTEN news")
    await habit.idle()


async def _locking(habit: Habit) -> None:
    await habit.line.tell(f"SELECT pg_advisory_lock_shared({habit.dice.randrange(9)})")
    while True:
        await habit.rest(3.0, 10.0)
        await habit.line.ask(_CLOCK)


async def _backing_up(habit: Habit) -> None:
    await habit.line.ask(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_CLOCK}")
    while True:
        await habit.rest(3.0, 10.0)
        await habit.line.ask(_CLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of clients."""

    application: str
    behave: Callable[[Habit], Awaitable[None]]
    role: str = "app"
    limit: float | None = None
    """Nothing: whatever it does, it must not be terminated."""


KINDS: Final[Mapping[str, Kind]] = {
    "pooled": Kind(application="web", behave=_pooled, limit=LIMIT),
    "leaked": Kind(application="web", behave=_leaked, limit=LIMIT),
    "forgotten": Kind(application="worker", behave=_forgotten, limit=LIMIT),
    "napping": Kind(application="web", behave=_napping, limit=LIMIT),
    "visiting": Kind(application="cron", behave=_visiting, limit=LIMIT),
    "allowlisted": Kind(application="metabase", behave=_seldom),
    "protected": Kind(application="nightly-etl", behave=_seldom),
    "listening": Kind(application="web", behave=_listening),
    "locking": Kind(application="web", behave=_locking),
    "backup": Kind(application="pg_dump", behave=_backing_up),
    "console": Kind(application="psql", behave=_seldom, role="postgres"),
    "outsider": Kind(application="web", behave=_seldom, role="other"),
}
PROBE: Final = Kind(application="probe", behave=_leaked, limit=LIMIT)
"""One that is leaked on purpose, to see whether it is still being looked after."""

CROWD: Final = Kind(application="crowd", behave=_leaked, role="other")
"""One that only takes up room."""


class Load:
    """Keeps so many clients of each kind alive, and everything that they have to say."""

    def __init__(self, port: Callable[[], int], dice: Random) -> None:
        self._port = port
        self._dice = dice
        self.depositions: list[Deposition] = []

    @property
    def present(self) -> list[Deposition]:
        """What the clients say whose sessions have not ended, as far as they know."""
        return [each for each in self.depositions if each.began and each.ended_at is None and not each.left]

    async def run(self, numbers: Mapping[str, int]) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, number in numbers.items():
                for each in range(number):
                    dice = Random(self._dice.random())  # noqa: S311 (a repeatable choice)
                    group.create_task(self._keep(name, dice), name=f"{name} {each}")

    async def open(self, name: str, kind: Kind) -> Line:
        """One session of this kind; NotServed when it cannot be had."""
        deposition = Deposition(kind=name, limit=kind.limit)
        self.depositions.append(deposition)
        return await Line.open(self._port(), deposition, role=kind.role, application=kind.application)

    async def _keep(self, name: str, dice: Random) -> None:
        while True:
            with suppress(NotServed):
                await self._once(name, dice)
            await asyncio.sleep(dice.uniform(*_ASIDE))

    async def _once(self, name: str, dice: Random) -> None:
        kind = KINDS[name]
        line = await self.open(name, kind)
        try:
            await kind.behave(Habit(line, dice))
        finally:
            await line.close()
