"""The clients of the demo: each has one habit, and can tell from its own end how it fares."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

Connection = AsyncConnection[tuple[object, ...]]

CUSTOMER: Final = "customer"
_QUERY: Final = "SELECT count(*) FROM orders"
_OWN_LOCKS: Final = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
_NEWS_PATIENCE: Final = 5.0
_NEXT_TRY: Final = 0.1


class Proof(NamedTuple):
    """What a client found when it used its connections again."""

    application: str
    well: bool
    words: str


class Door:
    """The clients' way in: one connection string, each under its own name and role."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def enter(self, application: str, role: str) -> Connection:
        """Connect, or raise what the server said."""
        return await AsyncConnection.connect(
            self._dsn, user=role, application_name=application, autocommit=True
        )


class Client(ABC):
    """An application with its connections."""

    application: ClassVar[str]
    role: ClassVar[str]
    habit: ClassVar[str]

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connections: list[Connection] = []

    async def connect(self) -> Connection:
        """Take one more connection."""
        connection = await self._door.enter(self.application, self.role)
        self._connections.append(connection)
        return connection

    async def leave(self) -> None:
        """Close every connection, dead or alive."""
        for connection in self._connections:
            await connection.close()


class Resident(Client):
    """A client that is to live: it arrives, and shows at the end that it is well."""

    @abstractmethod
    async def arrive(self) -> None:
        """Connect, and do what it is known for."""

    @abstractmethod
    async def proof(self) -> Proof:
        """Use the connections again."""

    async def prove(self) -> Proof:
        """How it fares, whatever comes of asking."""
        try:
            return await self.proof()
        except psycopg.Error as error:
            return self._said(well=False, words=server_words(error))

    def _said(self, *, well: bool, words: str) -> Proof:
        return Proof(self.application, well, words)


class Leader(Resident):
    """Holds an advisory lock, idle for hours."""

    application = "scheduler"
    role = "app_scheduler"
    habit = "took the advisory lock that makes it the leader"

    async def arrive(self) -> None:
        """Take the lock."""
        await (await self.connect()).execute("SELECT pg_advisory_lock(42)")

    async def proof(self) -> Proof:
        """See that the lock is still its own."""
        held = await _value(self._connections[0], _OWN_LOCKS)
        return self._said(well=held == 1, words="still the leader")


class Listener(Resident):
    """Waits for notifications, idle for hours."""

    application = "notifier"
    role = "app_notifier"
    habit = "LISTENs for orders"

    async def arrive(self) -> None:
        """Listen."""
        await (await self.connect()).execute("LISTEN orders")

    async def proof(self) -> Proof:
        """Hear a notification that somebody else sends."""
        await self._be_notified()
        heard = [news async for news in self._connections[0].notifies(timeout=_NEWS_PATIENCE, stop_after=1)]
        return self._said(well=bool(heard), words="hears notifications")

    @retry(
        # The slots may be taken at this moment; that says nothing of the listener.
        retry=retry_if_exception_type(psycopg.OperationalError),
        stop=stop_after_delay(_NEWS_PATIENCE),
        wait=wait_fixed(_NEXT_TRY),
        reraise=True,
    )
    async def _be_notified(self) -> None:
        async with await self._door.enter(CUSTOMER, "app_shop") as somebody:
            await somebody.execute("NOTIFY orders")


class Backup(Resident):
    """Copies the server's files between two statements, idle meanwhile."""

    application = "backup"
    role = "app_backup"
    habit = "called pg_backup_start and copies files"

    async def arrive(self) -> None:
        """Begin."""
        await (await self.connect()).execute("SELECT pg_backup_start('demo', true)")

    async def proof(self) -> Proof:
        """Finish, which only the session that began can."""
        end = await _value(self._connections[0], "SELECT lsn FROM pg_backup_stop(false)")
        return self._said(well=end is not None, words="finished its backup")


class Reports(Resident):
    """Keeps connections for the report that somebody may ask for."""

    application = "metabase"
    role = "bi_reports"
    habit = "keeps 2 connections for the next report"

    async def arrive(self) -> None:
        """Make the first reports."""
        for _ in range(2):
            await (await self.connect()).execute(_QUERY)

    async def proof(self) -> Proof:
        """Make a report on each connection."""
        answers = [await _value(connection, _QUERY) for connection in self._connections]
        return self._said(well=all(answers), words="both connections answer")


class BusyPool(Resident):
    """A pool as it should be: its connections are always at work."""

    application = "billing-api"
    role = "app_billing"
    habit = "works on 3 connections without a pause"

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._requests = 0
        self._failure: psycopg.Error | None = None

    async def arrive(self) -> None:
        """Fill the pool."""
        for _ in range(3):
            await self.connect()

    async def work(self, pause: float) -> None:
        """Use all connections again and again, until cancelled or one fails."""
        while self._failure is None:
            for connection in self._connections:
                await self._request(connection)
            await asyncio.sleep(pause)

    async def proof(self) -> Proof:
        """How many requests were answered."""
        if self._failure is not None:
            raise self._failure
        return self._said(well=self._requests > 0, words=f"{self._requests} requests, 0 failed")

    async def _request(self, connection: Connection) -> None:
        try:
            await connection.execute("INSERT INTO orders DEFAULT VALUES")
            self._requests += 1
        except psycopg.Error as error:
            self._failure = error


class LeakyPool(Client):
    """Takes a connection for every order, and forgets to give it back."""

    application = "checkout-web"
    role = "app_checkout"
    habit = "takes a connection for each order, never returns it"

    async def leak(self, pause: Callable[[], float]) -> None:
        """Take and forget, until cancelled."""
        while True:
            with suppress(psycopg.Error):
                await (await self.connect()).execute(_QUERY)
            await asyncio.sleep(pause())


class ForgottenTransaction(Client):
    """Anna's console: a transaction, and then lunch."""

    application = "psql"
    role = "anna"
    habit = "anna typed BEGIN, an UPDATE, and went to lunch"

    async def arrive(self) -> None:
        """Begin, and lock a row."""
        console = await self.connect()
        await console.execute("BEGIN")
        await console.execute("UPDATE orders SET paid = true WHERE id = 1")

    async def come_back(self) -> str:
        """What the console says to COMMIT."""
        try:
            await self._connections[0].execute("COMMIT")
        except psycopg.Error as error:
            return server_words(error)
        return "COMMIT"


class Customer(Client):
    """Connects, orders and leaves, again and again."""

    application = CUSTOMER
    role = "app_shop"
    habit = "connects, orders and leaves, again and again"

    async def shop(self, pause: float, trying: Callable[[], Callable[[str | None], None]]) -> None:
        """Try until cancelled; tell when each try begins, and then the server's words when it refused."""
        while True:
            tell = trying()
            tell(await self._try())
            await asyncio.sleep(pause)

    async def _try(self) -> str | None:
        try:
            async with await self._door.enter(self.application, self.role) as visit:
                await visit.execute(_QUERY)
        except psycopg.OperationalError as error:
            return server_words(error)
        return None


async def _value(connection: Connection, query: str) -> object:
    row = await (await connection.execute(query.encode())).fetchone()
    return row[0] if row else None


def server_words(error: psycopg.Error) -> str:
    """What the server itself said: `FATAL: sorry, too many clients already`."""
    if error.diag.message_primary:
        return f"{error.diag.severity}: {error.diag.message_primary}"
    said = str(error).splitlines()[0]
    _, severity, words = said.partition("FATAL:")
    return f"{severity} {words.strip()}" if severity else said
