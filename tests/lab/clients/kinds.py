"""The kinds of clients: pools at work, leaks, jobs, consoles, and those that must never be terminated."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from .session import NOW, Address, ClientSession, NotServed, SessionAccount

_CLOCK_AFTER: Final = f"SELECT {NOW} FROM pg_sleep({{}})"  # noqa: S608
_AWAY: Final = (0.05, 0.5)
"""How long a client waits before it opens another session, in seconds."""


class ActiveClient:
    """A client while it has a session."""

    def __init__(self, clients: "LabClients", session: ClientSession, dice: Random) -> None:
        self._clients = clients
        self.session = session
        self.dice = dice

    async def rest(self, shortest: float, longest: float) -> None:
        """Leave the session unused for this many limits, unless it ends meanwhile."""
        await self.idle(self._clients.limit * self.dice.uniform(shortest, longest))

    async def idle(self, seconds: float | None = None) -> None:
        """Leave the session unused for this many seconds, or for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.session.ended.wait()
        if self.session.ended.is_set():
            raise NotServed(self.session.account.sqlstate)
        if self._clients.paused:
            await asyncio.Event().wait()


async def _pooled(client: ActiveClient) -> None:
    """In use: short pauses, short and long statements, transactions with pauses inside."""
    limit = client._clients.limit
    while True:
        await client.rest(0.0, 0.6)
        if client.dice.random() < 0.3:
            await client.session.use(_CLOCK_AFTER.format(client.dice.uniform(0, 1.5 * limit)))
        await client.session.use()
        if client.dice.random() < 0.3:
            await client.session.use(f"BEGIN; SELECT {NOW}")
            for _ in range(client.dice.randrange(4)):
                await client.rest(0.1, 0.6)
                await client.session.use()
            await client.session.use(f"COMMIT; SELECT {NOW}")


async def _steady(client: ActiveClient) -> None:
    """In use all the time, with pauses that are too short for the limit."""
    while True:
        await client.rest(0.0, 0.6)
        await client.session.use()


async def _leaked(client: ActiveClient) -> None:
    """Used once and forgotten."""
    await client.session.use()
    await client.idle()


async def _forgotten(client: ActiveClient) -> None:
    """A transaction that is never ended."""
    await client.session.use(f"BEGIN; SELECT {NOW}")
    await client.idle()


async def _thinking(client: ActiveClient) -> None:
    """A transaction that is open while a person thinks."""
    while True:
        await client.session.use(f"BEGIN; SELECT {NOW}")
        await client.rest(0.1, 1.4)
        await client.session.use(f"COMMIT; SELECT {NOW}")
        await client.rest(0.1, 0.5)


async def _napping(client: ActiveClient) -> None:
    """Wakes up at random, most often at about the limit."""
    while True:
        await client.session.use()
        await client.rest(0.9, 1.05)


async def _job(client: ActiveClient) -> None:
    """Comes and goes like cron; one in three does not close its session."""
    for _ in range(client.dice.randrange(1, 4)):
        await client.session.use()
        await client.rest(0.0, 0.3)
    if client.dice.random() < 0.35:
        await client.idle()


async def _visiting(client: ActiveClient) -> None:
    """Works once, is idle for about the limit, and leaves."""
    await client.session.use()
    await client.rest(0.2, 1.6)


async def _returning(client: ActiveClient) -> None:
    """A job that runs now and then and keeps its session."""
    while True:
        await client.rest(0.5, 4.0)
        await client.session.use()


async def _passing(client: ActiveClient) -> None:
    """Comes back for a last statement and closes at once."""
    await client.rest(0.5, 5.0)
    await client.session.use()


async def _closing(client: ActiveClient) -> None:
    """Closes a session that it has not used any more."""
    await client.rest(0.5, 5.0)


async def _seldom(client: ActiveClient) -> None:
    """Used now and then, far beyond the limit."""
    while True:
        await client.session.use()
        await client.rest(3.0, 30.0)


async def _listening(client: ActiveClient) -> None:
    """Waits for notifications."""
    await client.session.run("LISTEN news")
    await client.idle()


async def _locking(client: ActiveClient) -> None:
    """Holds an advisory lock."""
    await client.session.run(f"SELECT pg_advisory_lock_shared({client.dice.randrange(9)})")
    while True:
        await client.rest(3.0, 10.0)
        await client.session.use()


async def _backing_up(client: ActiveClient) -> None:
    """Keeps the snapshot of a backup."""
    await client.session.use(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {NOW}")
    while True:
        await client.rest(3.0, 10.0)
        await client.session.use()


@dataclass(frozen=True, slots=True)
class ClientKind:
    """A kind of clients."""

    application: str
    """`#` stands for one of three digits."""
    behave: Callable[[ActiveClient], Awaitable[None]]
    role: str = "app"
    protected: bool = False
    """Whether its sessions must never be terminated, whatever they do."""


KINDS: Final[Mapping[str, ClientKind]] = {
    "pooled": ClientKind("web", _pooled),
    "leaked": ClientKind("web", _leaked),
    "forgotten": ClientKind("worker", _forgotten),
    "napping": ClientKind("web", _napping),
    "job": ClientKind("cron", _job),
    "allowlisted": ClientKind("metabase", _seldom, protected=True),
    "protected": ClientKind("nightly-etl", _seldom, protected=True),
    "listening": ClientKind("web", _listening, protected=True),
    "locking": ClientKind("web", _locking, protected=True),
    "backup": ClientKind("pg_dump", _backing_up, protected=True),
    "console": ClientKind("psql", _seldom, "postgres", protected=True),
    "outsider": ClientKind("web", _seldom, "other", protected=True),
    "pool": ClientKind("pool-#", _steady),
    "sleepy pool": ClientKind("pool-#", _napping),
    "leak": ClientKind("leak-#", _leaked),
    "returning": ClientKind("leak-#", _returning),
    "passing": ClientKind("leak-#", _passing),
    "closing": ClientKind("leak-#", _closing),
    "visiting": ClientKind("cron-#", _visiting),
    "thinking": ClientKind("console", _thinking),
    "pooler": ClientKind("pgbouncer", _returning),
}
PROBE: Final = ClientKind("probe", _leaked)
"""A leak on purpose, which shows whether the reaper works."""
FILLER: Final = ClientKind("filler", _leaked, "other", protected=True)
"""A session that only occupies a slot."""


class LabClients:
    """Keeps a number of clients of each kind running, and their accounts."""

    def __init__(
        self, at: Callable[[], Address], *, limit: float, seed: int, database: str = "postgres"
    ) -> None:
        self.limit = limit
        """The seconds for which a session may be idle: pauses are multiples of it."""
        self.paused = False
        """Whether clients use, open and close nothing any more."""
        self.accounts: list[SessionAccount] = []
        self._at = at
        self._database = database
        self._dice = Random(seed)  # noqa: S311 (a repeatable choice)

    @property
    def present(self) -> list[SessionAccount]:
        """The accounts of open sessions."""
        return [each for each in self.accounts if each.open]

    async def run(self, numbers: Mapping[str, int]) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, number in numbers.items():
                for _ in range(number):
                    dice = Random(self._dice.random())  # noqa: S311 (a repeatable choice)
                    group.create_task(self._keep_one(name, dice), name=name)

    async def open(self, name: str, kind: ClientKind, number: int = 0) -> ClientSession:
        """Open one session of this kind; NotServed if that is not possible."""
        account = SessionAccount(kind=name, limit=None if kind.protected else self.limit)
        self.accounts.append(account)
        application = kind.application.replace("#", str(number))
        return await ClientSession.open(
            self._at(), account, role=kind.role, application=application, database=self._database
        )

    async def _keep_one(self, name: str, dice: Random) -> None:
        while not self.paused:
            with suppress(NotServed):
                session = await self.open(name, KINDS[name], dice.randrange(3))
                try:
                    await KINDS[name].behave(ActiveClient(self, session, dice))
                finally:
                    # As far as their accounts are concerned, paused clients close nothing.
                    session.close(noted=not self.paused)
            await asyncio.sleep(dice.uniform(*_AWAY))
