"""Clients of every kind at once: pools at work, leaks that are sometimes used again, visitors, consoles."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from threading import Thread
from typing import Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

_POOLS: Final = 3
_MEMBERS: Final = 6
_CONSOLES: Final = 3
_MOST_LEAKS: Final = 30
_STEP: Final = 0.2


class Mixed:
    """Runs beside the test until it is left; a limit of idleness is what they live around."""

    def __init__(self, dsn: str, *, limit: float, seed: int) -> None:
        self._dsn = dsn
        self._limit = limit
        self._seed = seed
        self._over = False
        self._trouble: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        if self._trouble:
            raise self._trouble

    def check(self) -> None:
        """See that all of them are still there."""
        assert self._thread.is_alive(), f"the clients have ended by themselves: {self._trouble}"

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:  # noqa: BLE001 (told where it is waited for)
            self._trouble = error

    async def _all(self) -> None:
        dice = Random(self._seed)  # noqa: S311 (the same habits in every run)
        lives: list[Callable[[Random], Awaitable[None]]] = [self._leaks, self._visitors]
        async with asyncio.TaskGroup() as group:
            for number in range(_POOLS):
                for _ in range(_MEMBERS):
                    group.create_task(self._member(f"pool-{number}", Random(dice.random())))  # noqa: S311
            for life in lives:
                group.create_task(_awaited(life(Random(dice.random()))))  # noqa: S311
            for _ in range(_CONSOLES):
                group.create_task(self._console(Random(dice.random())))  # noqa: S311

    async def _open(self, application: str) -> psycopg.AsyncConnection:
        dsn = make_conninfo(self._dsn, application_name=application)
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        await connection.execute("SELECT 1")
        return connection

    async def _member(self, application: str, dice: Random) -> None:
        """Works as a rule long before the limit, and now and then about then."""
        async with await self._open(application) as connection:
            while not self._over:
                about_then = dice.random() < 0.15
                pause = dice.gauss(self._limit, 0.3) if about_then else dice.expovariate(6 / self._limit)
                await self._pause(pause)
                await connection.execute("SELECT 1")

    async def _leaks(self, dice: Random) -> None:
        """Are opened and forgotten; some are remembered much later, some closed."""
        held: list[psycopg.AsyncConnection] = []
        while not self._over:
            held.append(await self._open(f"leak-{dice.randrange(3)}"))
            if dice.random() < 0.4:
                await dice.choice(held).execute("SELECT 1")
            if len(held) > _MOST_LEAKS or dice.random() < 0.2:
                await held.pop(dice.randrange(len(held))).close()
            await self._pause(dice.expovariate(2 / self._limit))
        for connection in held:
            await connection.close()

    async def _visitors(self, dice: Random) -> None:
        """Come by the clock, work, and idle for about the limit before they leave."""
        leaving = set[asyncio.Task[None]]()
        while not self._over:
            for number in range(3):
                task = asyncio.create_task(self._visit(f"cron-{number}", dice))
                leaving.add(task)
                task.add_done_callback(leaving.discard)
            await self._pause(self._limit)
        await asyncio.gather(*leaving)

    async def _visit(self, application: str, dice: Random) -> None:
        async with await self._open(application):
            await self._pause(dice.uniform(0.2, 1.6) * self._limit)

    async def _console(self, dice: Random) -> None:
        """Opens a transaction and thinks."""
        async with await self._open("console") as connection:
            while not self._over:
                async with connection.transaction():
                    await connection.execute("SELECT 1")
                    await self._pause(dice.uniform(0.1, 1.4) * self._limit)
                await self._pause(dice.uniform(0.1, 0.5) * self._limit)

    async def _pause(self, seconds: float) -> None:
        """So long, but no longer than the end."""
        end = asyncio.get_running_loop().time() + seconds
        while not self._over and (left := end - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, _STEP))


async def _awaited(life: Awaitable[None]) -> None:
    await life
