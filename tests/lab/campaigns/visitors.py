"""Clients of every kind that a rehearsal meets, each of which keeps its own account of when it used what.

Pools in use, leaks, visitors that come back after a pause and stay, those that come back and close at once,
those that close without having come back, and a pooler's server connections.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

_OWN_START: Final = """
    SELECT (extract(epoch FROM backend_start) * 1000000)::int8
      FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


@dataclass(slots=True)
class Session:
    """One session as its own client knows it; the times are this host's, which is the server's too."""

    kind: str
    pid: int
    began: int
    """Microseconds since 1970, as the server has it."""
    uses: list[tuple[float, float]] = field(default_factory=list)
    """When each statement was sent, and when its answer had come."""
    closed: float | None = None

    def used_after(self, moment: float) -> tuple[float, float] | None:
        """Its first use after this moment."""
        return next((use for use in self.uses if use[1] > moment), None)


class Visitors:
    """Lets them come and go in a thread of its own, until they are asked to stand still."""

    def __init__(self, dsn: str, *, limit: float, several: int, seed: int) -> None:
        self._dsn = dsn
        self._limit = limit
        self._several = several
        self._dice = Random(seed)  # noqa: S311 (the same choices in every run)
        self._still = asyncio.Event()
        self._end = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="visitors")
        self._failed: list[BaseException] = []
        self.sessions: list[Session] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._still.set)
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    def stand_still(self) -> None:
        """From now on nobody uses, opens or closes anything."""
        self._loop.call_soon_threadsafe(self._still.set)

    def check(self) -> None:
        """See that all of them could do what they wanted."""
        if self._failed:
            raise self._failed[0]

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:  # noqa: BLE001 (told by check)
            self._failed.append(error)

    async def _live(self) -> None:
        lives: list[Callable[[], Awaitable[None]]] = [
            self._pooled,
            self._leaking,
            self._coming_back,
            self._passing_by,
            self._closing,
            self._pooler,
        ]
        async with asyncio.TaskGroup() as group:
            for life in lives:
                for _ in range(self._several):
                    group.create_task(_awaited(life))

    async def _pooled(self) -> None:
        """In use all the time, with a pause now and then that is too short."""
        async with _Client(self, "pool") as client:
            while await self._rests(0.0, 0.6):
                await client.use()

    async def _leaking(self) -> None:
        """Used once and forgotten."""
        await self._rests(0.0, 4.0)
        async with _Client(self, "leak"):
            await self._end.wait()

    async def _coming_back(self) -> None:
        """A job that runs now and then and keeps its connection."""
        async with _Client(self, "visitor") as client:
            while await self._rests(0.5, 4.0):
                await client.use()

    async def _passing_by(self) -> None:
        """One that comes back for a last statement and closes at once."""
        while not self._still.is_set():
            async with _Client(self, "passer") as client:
                if await self._rests(0.5, 5.0):
                    await client.use()

    async def _closing(self) -> None:
        """One that closes what it has not used any more."""
        while not self._still.is_set():
            async with _Client(self, "closer"):
                await self._rests(0.5, 5.0)

    async def _pooler(self) -> None:
        """A server connection of a pooler, used by whoever comes."""
        async with _Client(self, "pgbouncer") as client:
            while await self._rests(0.2, 3.0):
                await client.use()

    async def _rests(self, least: float, most: float) -> bool:
        """Wait for some multiple of the limit; false when everybody is to stand still."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limit * self._dice.uniform(least, most)):
                await self._still.wait()
        return not self._still.is_set()

    async def opened(self, kind: str) -> tuple[psycopg.AsyncConnection, Session]:
        """A new session of this kind, which has been used once."""
        dsn = make_conninfo(self._dsn, application_name=kind)
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        sent = time.time()
        row = await (await connection.execute(_OWN_START)).fetchone()
        assert row
        session = Session(kind, connection.info.backend_pid, int(row[0]), [(sent, time.time())])
        self.sessions.append(session)
        return connection, session

    async def closed(self, connection: psycopg.AsyncConnection, session: Session) -> None:
        """Close it, unless everybody stands still: then only when nobody looks any more."""
        if self._still.is_set():
            await self._end.wait()
        else:
            session.closed = time.time()
        await connection.close()


class _Client:
    """One connection, from its beginning to its end."""

    def __init__(self, visitors: Visitors, kind: str) -> None:
        self._visitors = visitors
        self._kind = kind

    async def __aenter__(self) -> Self:
        self._connection, self.session = await self._visitors.opened(self._kind)
        return self

    async def use(self) -> None:
        """Run a statement, and note when."""
        sent = time.time()
        await self._connection.execute("SELECT 1")
        self.session.uses.append((sent, time.time()))

    async def __aexit__(self, *_: object) -> None:
        await self._visitors.closed(self._connection, self.session)


async def _awaited(life: Callable[[], Awaitable[None]]) -> None:
    await life()
