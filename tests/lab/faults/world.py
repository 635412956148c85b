"""The world of the faults: servers, the link to them, reapers, clients, and what was noted."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from signal import Signals
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Self

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.telemetry import events
from tests.lab.clients.kinds import LabClients
from tests.lab.clients.session import SessionKey
from tests.lab.world.isolation import Isolation
from tests.lab.world.observe import LONG, running
from tests.lab.world.reaper import policy, rules
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.proxy import Proxy
from tests.system.policies import FILE

from .supervised import PAGES, SupervisedReaper

LIMIT: Final = 1.5
"""Seconds for which a session may be idle, also in its transaction."""
LEASE: Final = 15.0
"""Seconds: three intervals, but at least this."""
SETTINGS: Final[Mapping[str, str]] = {"max_connections": "60", "max_wal_senders": "4"}
_RETRY: Final = 0.1
_IN_FLIGHT: Final = 1.0
"""Seconds in which signals that were sent before may still take effect."""
_BETWEEN_VISITS: Final = 0.3
_SESSIONS: Final = """
    SELECT a.pid, floor(extract(epoch FROM a.backend_start))::int8, l.pid IS NOT NULL
      FROM pg_stat_activity a
      LEFT JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
                          AND l.classid = 1919246704 AND l.objid = 1 AND l.objsubid = 2
     WHERE a.usename = %s AND a.backend_type = 'client backend'
     ORDER BY 3 DESC, 1
"""


class LoadSize(NamedTuple):
    """The size of a run."""

    clients: Mapping[str, int]
    repeats: int
    """The repetitions of what a fault does more than once in a round."""


class QuietPeriod(NamedTuple):
    """A time, by this host's clock, in which no session may be terminated."""

    why: str
    since: float
    until: float


def policies(dsn: str, *, limit: float = LIMIT, mode: str = "enforce") -> str:
    """The policy file of the reapers."""
    keys = {
        "allowlist": {"application": ["metabase"]},
        # Leaks pile up during a fault, and that is not a mistake in a glob.
        "safety_limit": {"share": "100%"},
        "max_per_cycle": 20,
        # These clients reconnect at once, as a pool does, which the refill guard would notice.
        "refill_guard": "none",
    }
    in_transaction = ["idle in transaction", "idle in transaction (aborted)"]
    roles = ["app", "postgres"]
    return rules(
        dsn,
        policy("leaked", limit, mode=mode, role=roles, keys=keys),
        policy("forgotten", limit, mode=mode, role=roles, state=in_transaction, keys=keys),
        # Its outcomes are observed afterwards, beside real terminations.
        policy("dry-run", limit, mode="dry-run", role=roles, keys=keys),
        interval=1,
        min_interval=0.05,
        protect={"application": ["nightly-*"]},
    )


class FaultWorld:
    """Everything that a fault can reach."""

    def __init__(self, *, major: int, seed: int, size: LoadSize, place: Isolation) -> None:
        self.dice = Random(seed)  # noqa: S311 (a repeatable choice)
        self.place = place
        self.size = size
        self.server = LabServer(major, **SETTINGS)
        """The current server."""
        self.clients = LabClients(lambda: self.server.port, limit=LIMIT, seed=seed + 1)
        self.reapers: list[SupervisedReaper] = []
        self.rules = ""
        """The policy file of all reapers that may act, if it is not the usual one."""
        self.losses: list[tuple[str, float]] = []
        """The signal and the time of each loss of a leader while another reaper stood by."""
        self.quiet_periods: list[QuietPeriod] = []
        self.notes = Counter[str]()
        """Figures that faults count."""
        self.noticed = Counter[tuple[str, bool]]()
        """The faults that a reaper logged, and those that none logged."""
        self.answers = Counter[tuple[str, int]]()
        """The answers to requests of pages, by page and status; 0 is none."""
        self._servers: list[LabServer] = []
        self._logs = TemporaryDirectory(prefix="reaper-faults-logs-")
        self._kept_logs: list[Path] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._logs)
            stack.callback(self._stop_servers)
            await self.serve(self.server)
            self.proxy = stack.enter_context(Proxy(self.server.dsn))
            """The link from the reapers to the server."""
            stack.push_async_callback(self._stop_reapers)
            self.dry_runner = self.add_reaper("dry-runner", "--dry-run")
            """A dry run beside the others, which no fault touches."""
            self.first = self.add_reaper("first")
            self.load = await stack.enter_async_context(running(self.clients.run(self.size.clients)))
            await stack.enter_async_context(running(self._visit()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def hold(self, shortest: float, longest: float) -> None:
        """Let a fault last for this many seconds."""
        await asyncio.sleep(self.dice.uniform(shortest, longest))

    def reset_sometimes(self, share: float = 0.5) -> None:
        """Reset the link, so that the reaper has to connect again during the fault."""
        if self.dice.random() < share:
            self.proxy.reset()

    # Servers

    async def serve(self, server: LabServer) -> None:
        """Start a server and make it the current one."""
        self.adopt(server)
        await asyncio.to_thread(server.start)
        self.server = server

    def adopt(self, server: LabServer) -> None:
        """Stop this server at the end, and count its log."""
        self._servers.append(server)

    def follow(self, server: LabServer) -> None:
        """Make this the current server, for the clients and for the link of the reapers."""
        self.server = server
        self.proxy.point_at(server.dsn)

    def retire(self, server: LabServer) -> None:
        """Remove a server, and keep its log."""
        kept = Path(self._logs.name, f"{len(self._kept_logs)}.csv")
        kept.write_bytes(server.csv_log.read_bytes())
        self._kept_logs.append(kept)
        self._servers.remove(server)
        server.stop()

    async def server_logs(self) -> list[Path]:
        """The logs of all servers, complete up to now."""
        for server in self._servers:
            if server.running:
                await asyncio.to_thread(server.flush_log)
        return [*self._kept_logs, *(server.csv_log for server in self._servers if server.created)]

    @asynccontextmanager
    async def admin(self, *, within: float = LONG) -> AsyncIterator[psycopg.AsyncConnection]:
        """A session of the superuser, as soon as the server accepts it."""
        connection = await self._connected(time.monotonic() + within)
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, *statements: str) -> None:
        """Run statements as the superuser, all of them again if the server is lost meanwhile."""
        deadline = time.monotonic() + LONG
        while True:
            try:
                async with self.admin() as admin:
                    for statement in statements:
                        await admin.execute(statement.encode())
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY)
            else:
                return

    async def reaper_backends(self) -> list[SessionKey]:
        """The server processes of the reapers, the leader's first; none while the server is unreachable."""
        with suppress(psycopg.OperationalError):
            async with self.admin(within=0) as admin:
                cursor = await admin.execute(_SESSIONS, (REAPER,))
                return [SessionKey(began, pid) for pid, began, _ in await cursor.fetchall()]
        return []

    async def _connected(self, deadline: float) -> psycopg.AsyncConnection:
        while True:
            try:
                dsn = make_conninfo(self.server.dsn, connect_timeout=5, application_name="faults")
                return await psycopg.AsyncConnection.connect(dsn, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY)

    def _stop_servers(self) -> None:
        for server in self._servers:
            server.stop()

    # Reapers

    @property
    def dsn(self) -> str:
        """The DSN of the reapers, over the proxy."""
        return make_conninfo(self.proxy.dsn(), user=REAPER, dbname="postgres")

    @property
    def acting(self) -> list[SupervisedReaper]:
        """The reapers that may act and are running."""
        others = [each for each in self.reapers if each is not self.dry_runner]
        return [each for each in others if each.in_service and each.running]

    @property
    def leader(self) -> SupervisedReaper:
        """The reaper that leads, or the first one if none does."""
        return next((each for each in self.acting if each.leads), self.first)

    @property
    def current_rules(self) -> str:
        """The policy file of a reaper that starts now."""
        return self.rules or policies(self.dsn)

    @property
    def rule_files(self) -> list[Path]:
        """The policy files of the reapers that may act, whether they are running or not."""
        return [each.folder / FILE for each in self.reapers if each is not self.dry_runner]

    def change_rules(self, *, dsn: str | None = None, limit: float = LIMIT, mode: str = "enforce") -> None:
        """Replace their policy files; without arguments by the usual one."""
        self.rules = policies(dsn or self.dsn, limit=limit, mode=mode)
        for path in self.rule_files:
            replace_file(path, self.rules)

    def add_reaper(self, name: str, *options: str) -> SupervisedReaper:
        """Start another reaper."""
        folder = self.place.folder / name
        reaper = SupervisedReaper(folder, self.current_rules, *options, own_disk=self.place.own_mounts)
        self.reapers.append(reaper)
        reaper.supervise()
        return reaper

    async def join(self, name: str) -> None:
        """Start the reaper with this name, for the first time or again."""
        known = next((reaper for reaper in self.reapers if reaper.name == name), None)
        if known:
            known.supervise()
        await (known or self.add_reaper(name)).ready()

    async def leave(self, *names: str) -> None:
        """Stop the reapers with these names, or all."""
        for reaper in self.reapers:
            if not names or reaper.name in names:
                await reaper.leave()

    def send(self, reaper: SupervisedReaper, number: Signals, step: str) -> None:
        """Send a signal at this step; note the loss of a leader if another reaper stands by."""
        others = [each for each in self.acting if each is not reaper]
        if reaper.leads and any(each.log.named(events.STANDS_BY) for each in others):
            self.losses.append((number.name, time.time()))
        reaper.send(number)
        self.notes[f"{number.name} while {step}"] += 1

    @asynccontextmanager
    async def quiet(self, why: str) -> AsyncIterator[None]:
        """A time in which no session may be terminated."""
        since = time.time() + _IN_FLIGHT
        try:
            yield
        finally:
            self.quiet_periods.append(QuietPeriod(why=why, since=since, until=time.time()))

    async def _stop_reapers(self) -> None:
        await self.leave()
        for reaper in self.reapers:
            reaper.dismantle()

    async def _visit(self) -> None:
        """Open every page of every reaper, again and again."""
        while True:
            for reaper in [each for each in self.reapers if each.in_service]:
                for page in PAGES:
                    answer = await reaper.page(page)
                    self.answers[page, answer.status] += 1
            await asyncio.sleep(_BETWEEN_VISITS)


class Expectation:
    """A log event that an acting reaper is expected to log from now on."""

    def __init__(self, world: FaultWorld, *names: str, text: str = "") -> None:
        self._world = world
        self._names = names
        self._text = text
        logs = [each.log for each in world.reapers if each is not world.dry_runner]
        self._known = [(log, len(log.events)) for log in logs]

    @property
    def met(self) -> bool:
        """Return True if a reaper has logged it by now."""
        new = (event for log, known in self._known for event in log.events[known:])
        return any(event.name in self._names and self._text in str(event.fields) for event in new)

    async def wait(self, fault: str) -> bool:
        """Wait for it, and count whether it came: another fault may prevent it."""
        deadline = time.monotonic() + LONG
        while not self.met and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_RETRY / 10)
        self._world.noticed[fault, self.met] += 1
        return self.met


def replace_file(path: Path, text: str) -> None:
    """Replace a file in one step, so that no reader sees half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
