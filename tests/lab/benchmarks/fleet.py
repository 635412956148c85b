"""Many servers in one process: what each of them costs, and how soon all of them are observed."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString, NamedTuple, Self

import psycopg
from psycopg import AsyncConnection

from tests.lab.report import NOTHING, figure, milliseconds, table, tail
from tests.lab.world.observe import ProcessMemory, memory
from tests.lab.world.reaper import PORT, ReaperProcess, policy
from tests.lab.world.server import LabServer
from tests.system.policies import policy_file

_POLICIES: Final = 5
_AT_ONCE: Final = 4
_STATEMENT: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity
     WHERE usename = 'app' AND state = 'idle' AND state_change < now() - interval '1 s'
"""


def fleet(
    *,
    major: int,
    servers: tuple[int, ...] = (1, 50, 500),
    interval: int = 10,
    window: float = 20.0,
    on_each: int = 25,
) -> Iterator[str]:
    """CPU and memory of one process by its number of servers.

    A window is measured twice: without requests for the CPU, and with them for the delays.
    """
    with _Databases(major, max(servers), on_each) as databases, TemporaryDirectory() as folder:
        taken = [_measure(databases, Path(folder), count, interval, window) for count in servers]
    title = (
        f"Fleet: one process, {on_each} sessions at each server, {_POLICIES} policies, interval {interval} s;"
        "\nCPU/cycle and RSS/server of each server after the first; bare: a prepared statement on a held "
        "connection, client CPU"
    )
    head = ("servers", "answers after", "all cycled after", "CPU/cycle", "to bare", "of a core", "RSS", "PSS")
    more = ("RSS/server", "/livez median", "p95", "max")
    yield table(title, (*head, *more), [_row(each, taken[0], window) for each in taken])


class _Databases:
    """Databases that stand for servers, few enough on each PostgreSQL.

    A reaper observes all sessions of a PostgreSQL, in any database. With all databases on one, each "server"
    would have as many sessions as there are servers.
    """

    def __init__(self, major: int, count: int, on_each: int) -> None:
        self.sessions = on_each
        """What a reaper observes at each: one of its own for each database, and bystanders for the rest."""
        self._count = count
        self._servers = [
            LabServer(major, max_connections=str(2 * on_each + 20)) for _ in range(-(-count // on_each))
        ]
        self._dsns: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(stack.enter_context, self._servers))
            for dsns in threads.map(self._create, range(len(self._servers))):
                self._dsns += dsns
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def some(self, count: int, stack: ExitStack) -> Sequence[str]:
        """The DSNs of some servers, each with its share of sessions until the stack is closed."""
        for number, server in enumerate(self._servers):
            here = min(self.sessions, count - number * self.sessions)
            for _ in range(self.sessions - here if here > 0 else 0):
                stack.enter_context(psycopg.connect(server.dsn_of("other")))
        return self._dsns[:count]

    def _create(self, number: int) -> list[str]:
        count = min(self.sessions, self._count - number * self.sessions)
        return [self._servers[number].database(f"server {each}") for each in range(count)]


class _FleetCost(NamedTuple):
    """What was measured with one number of servers."""

    servers: int
    answers: float
    all_cycled: float
    cycles: int
    cpu: float
    memory: ProcessMemory
    bare: float
    delays: Sequence[float]


def _measure(databases: _Databases, folder: Path, count: int, interval: int, window: float) -> _FleetCost:
    with ExitStack() as sessions:
        dsns = databases.some(count, sessions)
        text = _policy_file(dsns, interval)
        with ReaperProcess(folder / f"{count} servers", text, listen=PORT) as reaper:
            answers = reaper.answers("/livez")
            all_cycled = answers + reaper.answers()
            time.sleep(interval)  # the second snapshot comes sooner than the others
            cycles, spent = reaper.cycles_by_metrics(), reaper.cpu()
            time.sleep(window)
            spent, cycles = reaper.cpu() - spent, reaper.cycles_by_metrics() - cycles
            held = memory(reaper.pid)
            delays = list(reaper.delays(seconds=window))
        # The bare connections take the place of the reaper's own.
        bare = asyncio.run(_bare(dsns, rounds=max(1, round(window / interval)), pause=interval))
    return _FleetCost(count, answers, all_cycled, cycles, spent, held, bare, delays)


def _policy_file(dsns: Sequence[str], interval: int) -> str:
    waiting = [policy(f"waits-{number}", 86_400, role=["app"]) for number in range(_POLICIES - 1)]
    soon = policy("leaked", 1, role=["app"])
    servers = [{"name": f"server-{number}", "dsn": dsn} for number, dsn in enumerate(dsns)]
    return policy_file(*waiting, soon, interval=f"{interval}s", min_interval="1s", servers=servers)


async def _bare(dsns: Sequence[str], *, rounds: int, pause: float) -> float:
    """CPU seconds of a prepared statement on a held connection, in rounds over all servers."""
    async with AsyncExitStack() as stack:
        opening = [AsyncConnection.connect(dsn, autocommit=True) for dsn in dsns]
        links = [await stack.enter_async_context(link) for link in await asyncio.gather(*opening)]
        await asyncio.gather(*map(_query, links))
        spent = 0.0
        for _ in range(rounds):
            await asyncio.sleep(pause)
            before = time.process_time()
            await asyncio.gather(*map(_query, links))
            spent += time.process_time() - before
    return spent / (rounds * len(links))


async def _query(link: AsyncConnection[tuple[Any, ...]]) -> None:
    async with link.cursor(binary=True) as cursor:
        await cursor.execute(_STATEMENT, prepare=True)
        await cursor.fetchall()


def _row(taken: _FleetCost, first: _FleetCost, window: float) -> Sequence[str]:
    servers, cycles = taken.servers - first.servers, taken.cycles - first.cycles
    each = (taken.cpu - first.cpu) / cycles if cycles > 0 else None
    return (
        str(taken.servers),
        figure(taken.answers, "s"),
        figure(taken.all_cycled, "s"),
        NOTHING if each is None else milliseconds(each, 2),
        NOTHING if each is None else f"{each / taken.bare:.1f}",
        figure(100 * taken.cpu / window, "%", 2),
        figure(taken.memory.rss, "MiB", 0),
        figure(taken.memory.pss, "MiB", 0),
        figure(1024 * (taken.memory.rss - first.memory.rss) / servers, "KiB", 0) if servers else NOTHING,
        *tail(taken.delays),
    )
