"""The world of a campaign: a server, a line to it, the reapers, the load, and everything that was noted."""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from signal import Signals
from typing import Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.telemetry import events
from tests.postgres.majors import installation
from tests.postgres.proxy import Proxy

from .load import LIMIT, Load
from .notes import Loss, Size, Truce
from .patience import LONG
from .place import Place
from .replica import Replica
from .rules import rules
from .server_log import PREFIX, Who
from .servers import Server
from .visitor import Visitor

ROLE: Final = "reaper"
LEASE: Final = 15.0
"""Seconds: three intervals, but at least so many."""
SETTINGS: Final[Mapping[str, str]] = {
    "max_connections": "60",
    "log_line_prefix": PREFIX,
    "max_wal_senders": "4",
}
"""Of every server that there is in a campaign."""
_ROLES: Final = (
    "CREATE ROLE app LOGIN",
    "CREATE ROLE other LOGIN",
    f"CREATE ROLE {ROLE} LOGIN",
    f"GRANT pg_read_all_stats, pg_signal_backend TO {ROLE}",
)
_AGAIN: Final = 0.1

_SESSIONS: Final = """
    SELECT a.pid, floor(extract(epoch FROM a.backend_start))::int8, l.pid IS NOT NULL
      FROM pg_stat_activity a
      LEFT JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
                          AND l.classid = 1919246704 AND l.objid = 1 AND l.objsubid = 2
     WHERE a.usename = %s AND a.backend_type = 'client backend'
     ORDER BY 3 DESC, 1
"""


class World:
    """Everything that a fault can lay hands on."""

    def __init__(self, *, major: int, seed: int, size: Size, place: Place) -> None:
        self.dice = Random(seed)  # noqa: S311 (a repeatable choice)
        self.folder = place.folder
        self.place = place
        self.server = Server(binaries=installation(major), settings=SETTINGS)
        """The server that is in charge now."""
        self.load = Load(lambda: self.server.port, Random(seed + 1))  # noqa: S311 (as above)
        self.reapers: list[Replica] = []
        self.losses: list[Loss] = []
        self.by_others: set[Who] = set()
        """Sessions that the campaign itself has terminated."""
        self.blows = Counter[tuple[str, str]]()
        """Signals to a reaper, by the step at which it was."""
        self.notes: dict[str, int] = {}
        """Figures that faults count, by their name."""
        self.felt = Counter[tuple[str, bool]]()
        """How often a reaper has said that it felt a fault, and how often none has, by the fault's name."""
        self.truces: list[Truce] = []
        self.decreed = ""
        """The policy file for all that may act, when it is not the ordinary one."""
        self.size = size
        self._logs = tempfile.TemporaryDirectory(prefix="reaper-faults-logs-")
        self._kept_logs: list[Path] = []
        self._servers: list[Server] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._logs.cleanup)
            stack.callback(self._stop_servers)
            await self.serve(self.server)
            self.line = stack.enter_context(Proxy(self.server.dsn))
            """The reapers' way to the server, which can be cut, and turned to another server."""
            stack.push_async_callback(self._stop_reapers)
            self.witness = self.add_reaper("witness", "--dry-run")
            """Rehearses beside the others, and is never struck itself."""
            self.reaper = self.add_reaper("first")
            self._clients = asyncio.create_task(self.load.run(self.size.clients), name="load")
            stack.push_async_callback(_cancelled, self._clients)
            self.visitor = Visitor(self.reapers)
            visits = asyncio.create_task(self.visitor.run(), name="visits")
            stack.push_async_callback(_cancelled, visits)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def serve(self, server: Server) -> None:
        """Start a server, with what the campaign needs on it."""
        self._servers.append(server)
        await asyncio.to_thread(server.start)
        self.server = server
        async with self.admin() as admin:
            for statement in _ROLES:
                await admin.execute(statement.encode())

    def adopt(self, server: Server) -> None:
        """Remember a server that was started elsewhere: its log counts, and it is stopped at the end."""
        self._servers.append(server)

    def follow(self, server: Server) -> None:
        """From now on this one is the server, for the load and for the reapers' line."""
        self.server = server
        self.line.point_at(server.dsn)

    @property
    def server_logs(self) -> list[Path]:
        """The logs of all servers that there ever were."""
        return [*self._kept_logs, *(server.log_path for server in self._servers if server._folder)]

    def retire(self, server: Server) -> None:
        """Remove a server for good, and keep its log."""
        kept = Path(self._logs.name, f"{len(self._kept_logs)}.log")
        kept.write_bytes(server.log_path.read_bytes())
        self._kept_logs.append(kept)
        self._servers.remove(server)
        server.stop()

    @asynccontextmanager
    async def admin(self, *, within: float = LONG) -> AsyncIterator[psycopg.AsyncConnection]:
        """A superuser's session, had as soon as the server lets anybody in."""
        connection = await self._connected(time.monotonic() + within)
        try:
            yield connection
        finally:
            await connection.close()

    async def _connected(self, deadline: float) -> psycopg.AsyncConnection:
        while True:
            try:
                dsn = make_conninfo(self.server.dsn, connect_timeout=5, application_name="campaign")
                return await psycopg.AsyncConnection.connect(dsn, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_AGAIN)

    async def execute(self, *statements: str, within: float = LONG) -> None:
        """Run statements as the superuser, all of them again when the server is lost meanwhile."""
        deadline = time.monotonic() + within
        while True:
            try:
                async with self.admin(within=within) as admin:
                    for statement in statements:
                        await admin.execute(statement.encode())
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def backends(self) -> list[Who]:
        """The server's ends of the reapers' sessions, the one that may act first; none while it is away."""
        with suppress(psycopg.OperationalError):
            async with self.admin(within=0) as admin:
                cursor = await admin.execute(_SESSIONS, (ROLE,))
                return [Who(began, pid) for pid, began, _ in await cursor.fetchall()]
        return []

    async def terminate(self, *whom: Who) -> None:
        """End sessions as an administrator would, and tell the judge that it was us."""
        self.by_others.update(whom)
        await self.execute(
            *(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {who.pid} "  # noqa: S608
                f"AND floor(extract(epoch FROM backend_start)) = {who.began}"
                for who in whom
            )
        )

    def policies(self) -> str:
        """The policy file of every reaper that begins now."""
        return self.decreed or rules(self.way_in, limit=LIMIT)

    @property
    def way_in(self) -> str:
        """The reaper's way in, over the line."""
        return make_conninfo(self.line.dsn(), user=ROLE, dbname="postgres")

    def add_reaper(self, name: str, *options: str) -> Replica:
        """Start another reaper."""
        replica = Replica(self.folder / name, self.policies(), *options, own_disk=self.place.own_mounts)
        self.reapers.append(replica)
        replica.start()
        return replica

    async def join(self, name: str) -> Replica:
        """Let another reaper of this name take part, the first time or again."""
        for replica in self.reapers:
            if replica.name == name:
                replica.start()
                break
        else:
            replica = self.add_reaper(name)
        await replica.up()
        return replica

    async def leave(self, name: str) -> None:
        """End the reaper of this name politely, if it takes part."""
        for replica in self.reapers:
            if replica.name == name:
                await replica.stop()

    @property
    def acting(self) -> list[Replica]:
        """The reapers that may act, as far as they are up."""
        return [
            each
            for each in self.reapers
            if each is not self.witness and each.in_service and each.daemon.running
        ]

    @property
    def leader(self) -> Replica:
        """The one that says that it leads, or the first one when none does."""
        return next((each for each in self.acting if each.leads), self.reaper)

    @property
    def postmaster(self) -> int:
        """The pid of the server's first process."""
        postmaster = self.server._postmaster
        return postmaster.pid if postmaster else 0

    def lost(self, replica: Replica, how: str) -> None:
        """Note that a leader is being lost, when somebody stands by to take over."""
        standing_by = [
            each
            for each in self.acting
            if each is not replica and each.daemon.journal.named(events.STANDS_BY)
        ]
        if replica.leads and standing_by:
            self.losses.append(Loss(at=time.time(), how=how))

    def check(self) -> None:
        """Raise whatever has ended the load, which only the end of the campaign may do."""
        if self._clients.done():
            self._clients.result()

    def count(self, what: str, by: int = 1) -> None:
        """Count something that the table is to show."""
        self.notes[what] = self.notes.get(what, 0) + by

    async def end(self) -> None:
        """Let every reaper end politely; from then on nothing happens that is to be judged."""
        for replica in self.reapers:
            await replica.stop()

    async def _stop_reapers(self) -> None:
        await self.end()
        for replica in self.reapers:
            replica.dismantle()

    def _stop_servers(self) -> None:
        for server in self._servers:
            server.stop()


def signal(pid: int, number: Signals) -> bool:
    """Send a signal to whoever it is; whether there was somebody."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
