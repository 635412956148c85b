"""The kinds of clients: pools at work, leaks, jobs, consoles, and those that must never be terminated."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from .session import NOW, Address, ClientSession, NotServed, SessionAccount

_AWAY: Final = (0.05, 0.5)
"""The seconds that a client waits before it opens another session."""


class ActiveClient:
    """A client while it has a session."""

    def __init__(self, clients: "LabClients", session: ClientSession, dice: Random) -> None:
        self._clients = clients
        self.use = session.use
        self.run = session.run
        self._session = session
        self.dice = dice
        self.limit = clients.limit

    async def rest(self, shortest: float, longest: float) -> None:
        """Leave the session unused for this many limits, unless it ends meanwhile."""
        await self.idle(self.limit * self.dice.uniform(shortest, longest))

    async def idle(self, seconds: float | None = None) -> None:
        """Leave the session unused for this many seconds, or until it ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._session.ended.wait()
        if self._session.ended.is_set():
            raise NotServed(self._session.account.sqlstate)
        if self._clients.paused:
            await asyncio.Event().wait()


Behaviour = Callable[[ActiveClient], Awaitable[None]]


def _again(shortest: float, longest: float, first: str = f"SELECT {NOW}") -> Behaviour:
    """A client that uses its session with pauses of this many limits, after a first statement."""

    async def behave(client: ActiveClient) -> None:
        await client.run(first)
        while True:
            await client.use()
            await client.rest(shortest, longest)

    return behave


def _once(*pauses: float, statement: str = f"SELECT {NOW}") -> Behaviour:
    """A client that uses its session once, and closes it after a pause of this many limits, or never."""

    async def behave(client: ActiveClient) -> None:
        await client.use(statement)
        await (client.rest(*pauses) if pauses else client.idle())

    return behave


async def _pooled(client: ActiveClient) -> None:
    """Short pauses, short and long statements, transactions with pauses inside."""
    while True:
        await client.rest(0.0, 0.6)
        if client.dice.random() < 0.3:
            seconds = client.dice.uniform(0, 1.5 * client.limit)
            await client.use(f"SELECT {NOW} FROM pg_sleep({seconds})")  # noqa: S608
        await client.use()
        if client.dice.random() < 0.3:
            await client.use(f"BEGIN; SELECT {NOW}")
            for _ in range(client.dice.randrange(4)):
                await client.rest(0.1, 0.6)
                await client.use()
            await client.use(f"COMMIT; SELECT {NOW}")


async def _thinking(client: ActiveClient) -> None:
    """A transaction that is open during a pause of its user."""
    while True:
        await client.use(f"BEGIN; SELECT {NOW}")
        await client.rest(0.1, 1.4)
        await client.use(f"COMMIT; SELECT {NOW}")
        await client.rest(0.1, 0.5)


async def _job(client: ActiveClient) -> None:
    """A short session of cron; one in three does not close it."""
    for _ in range(client.dice.randrange(1, 4)):
        await client.use()
        await client.rest(0.0, 0.3)
    if client.dice.random() < 0.35:
        await client.idle()


async def _passing(client: ActiveClient) -> None:
    """A last statement after a long pause, and the end of the session at once."""
    await client.rest(0.5, 5.0)
    await client.use()


async def _closing(client: ActiveClient) -> None:
    """The end of a session after a long pause."""
    await client.rest(0.5, 5.0)


async def _listening(client: ActiveClient) -> None:
    """A session that waits for notifications."""
    await client.run("LISTEN news")
    await client.idle()


@dataclass(frozen=True, slots=True)
class ClientKind:
    """A kind of clients."""

    application: str
    """`#` stands for one of three digits."""
    behave: Behaviour
    role: str = "app"
    protected: bool = False
    """True if its sessions must never be terminated."""


_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
KINDS: Final[Mapping[str, ClientKind]] = {
    "pooled": ClientKind("web", _pooled),
    "leaked": ClientKind("web", _once()),
    "forgotten": ClientKind("worker", _once(statement=f"BEGIN; SELECT {NOW}")),
    "napping": ClientKind("web", _again(0.9, 1.05)),
    "job": ClientKind("cron", _job),
    "allowlisted": ClientKind("metabase", _again(3.0, 30.0), protected=True),
    "protected": ClientKind("nightly-etl", _again(3.0, 30.0), protected=True),
    "listening": ClientKind("web", _listening, protected=True),
    "locking": ClientKind("web", _again(3.0, 10.0, "SELECT pg_advisory_lock_shared(1)"), protected=True),
    "backup": ClientKind("pg_dump", _again(3.0, 10.0, _SNAPSHOT), protected=True),
    "console": ClientKind("psql", _again(3.0, 30.0), "postgres", protected=True),
    "outsider": ClientKind("web", _again(3.0, 30.0), "other", protected=True),
    "pool": ClientKind("pool-#", _again(0.0, 0.6)),
    "sleepy pool": ClientKind("pool-#", _again(0.9, 1.05)),
    "leak": ClientKind("leak-#", _once()),
    "returning": ClientKind("leak-#", _again(0.5, 4.0)),
    "passing": ClientKind("leak-#", _passing),
    "closing": ClientKind("leak-#", _closing),
    "visiting": ClientKind("cron-#", _once(0.2, 1.6)),
    "thinking": ClientKind("console", _thinking),
    "pooler": ClientKind("pgbouncer", _again(0.5, 4.0)),
}
PROBE: Final = ClientKind("probe", _once())
"""A leak on purpose: its end shows that the reaper works."""
FILLER: Final = ClientKind("filler", _once(), "other", protected=True)
"""A session that only occupies a slot."""


class LabClients:
    """Runs a number of clients of each kind, and holds their accounts."""

    def __init__(
        self, at: Callable[[], Address], *, limit: float, seed: int, database: str = "postgres"
    ) -> None:
        self.limit = limit
        """The seconds for which a session may be idle: pauses are multiples of it."""
        self.paused = False
        """True when clients no longer use, open or close sessions."""
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
