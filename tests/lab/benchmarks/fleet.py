"""Many servers in one process and in several: what each costs, and whether a hung one delays the others."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString, NamedTuple, Self

import psycopg
from psycopg import AsyncConnection

from tests.lab.report import NOTHING, Scale, figure, milliseconds, table, tail
from tests.lab.world.observe import HttpPort, ProcessMemory, cpu_seconds, memory
from tests.lab.world.reaper import CYCLES, ReaperProcess, policy
from tests.lab.world.server import LabServer
from tests.postgres.proxy import Proxy
from tests.system.policies import policy_file


@dataclass(frozen=True, slots=True, kw_only=True)
class _FleetSize:
    servers: Sequence[int]
    processes: Sequence[int]
    interval: int
    window: float
    """Several intervals: once without requests for the CPU, once with them for the delays."""
    beside_a_hung_one: int
    hung_interval: int
    hung_window: float
    """Longer than a hung connection is waited for."""
    rounds: int = 2
    on_each: int = 25


_SIZES: Final[Mapping[Scale, _FleetSize]] = {
    Scale.FULL: _FleetSize(
        servers=(1, 50, 500),
        processes=(1, 2, 4),
        interval=10,
        window=20,
        beside_a_hung_one=50,
        hung_interval=2,
        hung_window=20,
    ),
    Scale.SMOKE: _FleetSize(
        servers=(2,),
        processes=(2,),
        interval=1,
        window=1,
        beside_a_hung_one=1,
        hung_interval=1,
        hung_window=1.5,
        rounds=1,
        on_each=3,
    ),
}
_POLICIES: Final = 5
_AT_ONCE: Final = 4
_HUNG: Final = "hung"
_STATEMENT: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity
     WHERE usename = 'app' AND state = 'idle' AND state_change < now() - interval '1 s'
"""


def run(scale: Scale, major: int) -> Iterator[str]:
    """A table of fleets, one of several processes, and one of a hung server."""
    size = _SIZES[scale]
    count = max(*size.servers, size.beside_a_hung_one + 1)
    with _Databases(major, count, size.on_each) as databases, TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield _fleets(databases, folder, size)
        yield _sharded(databases, folder, size)
        yield _beside_a_hung_one(databases, folder, size)


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
        """The DSNs of some servers, each with its share of sessions as long as the stack lasts."""
        for number, server in enumerate(self._servers):
            here = min(self.sessions, count - number * self.sessions)
            for _ in range(self.sessions - here if here > 0 else 0):
                stack.enter_context(psycopg.connect(server.dsn_of("other")))
        return self._dsns[:count]

    def _create(self, number: int) -> list[str]:
        count = min(self.sessions, self._count - number * self.sessions)
        return [self._servers[number].database(f"server {each}") for each in range(count)]


class _FleetReaper(ReaperProcess):
    """A reaper of many servers."""

    def __init__(
        self, folder: Path, dsns: Mapping[str, str], interval: int, *options: str, level: str = "info"
    ) -> None:
        port = HttpPort()
        waiting = [policy(f"waits-{number}", 86_400, role=["app"]) for number in range(_POLICIES - 1)]
        servers = [{"name": name, "dsn": dsn} for name, dsn in dsns.items()]
        soon = policy("leaked", 1, role=["app"])
        text = policy_file(*waiting, soon, interval=f"{interval}s", min_interval="1s", servers=servers)
        super().__init__(folder, text, "--listen", port.at, *options, log_level=level)
        self.port = HttpPort(lambda: self.running, at=port.at)


def _named(dsns: Sequence[str]) -> dict[str, str]:
    return {f"server-{number}": dsn for number, dsn in enumerate(dsns)}


class _FleetTaken(NamedTuple):
    """What was measured with one number of servers."""

    servers: int
    answers: float
    all_cycled: float
    cycles: int
    cpu: float
    memory: ProcessMemory
    bare: float
    delays: Sequence[float]


def _fleets(databases: _Databases, folder: Path, size: _FleetSize) -> str:
    taken = [_measure(databases, folder, count, size) for count in size.servers]
    title = (
        f"Fleet: one process, {databases.sessions} sessions at each server, {_POLICIES} policies, interval "
        f"{size.interval} s;\nCPU/cycle and RSS/server of each server after the first; bare: a prepared "
        "statement on a held connection, client CPU"
    )
    head = ("servers", "answers after", "all cycled after", "CPU/cycle", "to bare", "of a core", "RSS", "PSS")
    more = ("RSS/server", "/livez median", "p95", "max")
    return table(title, (*head, *more), [_row(each, taken[0], size) for each in taken])


def _row(taken: _FleetTaken, first: _FleetTaken, size: _FleetSize) -> Sequence[str]:
    servers, cycles = taken.servers - first.servers, taken.cycles - first.cycles
    each = (taken.cpu - first.cpu) / cycles if cycles > 0 else None
    return (
        str(taken.servers),
        figure(taken.answers, "s"),
        figure(taken.all_cycled, "s"),
        NOTHING if each is None else milliseconds(each, 2),
        NOTHING if each is None else f"{each / taken.bare:.1f}",
        figure(100 * taken.cpu / size.window, "%", 2),
        figure(taken.memory.rss, "MiB", 0),
        figure(taken.memory.pss, "MiB", 0),
        figure(1024 * (taken.memory.rss - first.memory.rss) / servers, "KiB", 0) if servers else NOTHING,
        *tail([1000 * delay for delay in taken.delays], "ms"),
    )


def _measure(databases: _Databases, folder: Path, count: int, size: _FleetSize) -> _FleetTaken:
    with ExitStack() as sessions, ExitStack() as stack:
        dsns = databases.some(count, sessions)
        fleet = stack.enter_context(_FleetReaper(folder / f"{count} servers", _named(dsns), size.interval))
        answers = fleet.port.wait("/livez")
        all_cycled = answers + fleet.port.wait("/readyz")
        time.sleep(size.interval)  # the second snapshot comes sooner than the others
        cycles, spent = fleet.port.cycles(), cpu_seconds(fleet.pid)
        time.sleep(size.window)
        spent, cycles = cpu_seconds(fleet.pid) - spent, fleet.port.cycles() - cycles
        held = memory(fleet.pid)
        delays = list(fleet.port.delays(seconds=size.window))
        stack.close()  # the bare connections take the place of its own
        return _FleetTaken(
            servers=count,
            answers=answers,
            all_cycled=all_cycled,
            cycles=cycles,
            cpu=spent,
            memory=held,
            bare=asyncio.run(_bare(dsns, rounds=round(size.window / size.interval), pause=size.interval)),
            delays=delays,
        )


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


def _sharded(databases: _Databases, folder: Path, size: _FleetSize) -> str:
    count = max(size.servers)
    with ExitStack() as sessions:
        dsns = _named(databases.some(count, sessions))
        rows = [_shards(folder, processes, dsns, size) for processes in size.processes]
    title = f"Sharded: {count} servers over some processes; all of them together, and the busiest one"
    head = (
        "processes",
        "all cycled after",
        "CPU/cycle",
        "of a core",
        "the busiest",
        "RSS",
        "PSS",
        "cycles of each",
    )
    return table(title, head, rows)


def _shards(folder: Path, count: int, dsns: Mapping[str, str], size: _FleetSize) -> Sequence[str]:
    with ExitStack() as stack:
        began = time.monotonic()
        folders = [(folder / f"shard {number} of {count}", f"{number}/{count}") for number in range(count)]
        shards = [
            stack.enter_context(_FleetReaper(each, dsns, size.interval, "--shard", shard))
            for each, shard in folders
        ]
        for shard in shards:
            shard.port.wait("/readyz")
        ready = time.monotonic() - began
        time.sleep(size.window / 2)  # the second snapshot comes sooner than the others
        before = [(cpu_seconds(shard.pid), shard.port.cycles()) for shard in shards]
        time.sleep(size.window)
        after = [(cpu_seconds(shard.pid), shard.port.cycles()) for shard in shards]
        held = [memory(shard.pid) for shard in shards]
    cpu = [new[0] - old[0] for old, new in zip(before, after, strict=True)]
    cycles = [new[1] - old[1] for old, new in zip(before, after, strict=True)]
    return (
        str(count),
        figure(ready, "s"),
        milliseconds(sum(cpu) / sum(cycles), 2) if sum(cycles) else NOTHING,
        figure(100 * sum(cpu) / size.window, "%", 1),
        figure(100 * max(cpu) / size.window, "%", 1),
        figure(sum(each.rss for each in held), "MiB", 0),
        figure(sum(each.pss for each in held), "MiB", 0),
        " ".join(map(str, cycles)),
    )


def _beside_a_hung_one(databases: _Databases, folder: Path, size: _FleetSize) -> str:
    """Cycles of the others while one server answers, and while it does not, in turns in one process."""
    gaps: dict[str, list[float]] = {"all answer": [], "one hangs": []}
    delays: dict[str, list[float]] = {name: [] for name in gaps}
    with ExitStack() as stack:
        *others, one = databases.some(size.beside_a_hung_one + 1, stack)
        proxy = stack.enter_context(Proxy(one))
        dsns = {**_named(others), _HUNG: proxy.dsn(one)}
        fleet = stack.enter_context(_FleetReaper(folder / _HUNG, dsns, size.hung_interval, level="debug"))
        for _ in range(size.rounds):
            proxy.restore()
            fleet.port.wait("/readyz")
            time.sleep(2 * size.hung_interval)
            for name, change in (("all answer", proxy.restore), ("one hangs", proxy.stall)):
                change()
                since = time.time()
                delays[name] += fleet.port.delays(seconds=size.hung_window)
                gaps[name] += _gaps(fleet, since)
        proxy.restore()
        fleet.stop()  # while the proxy is there
    title = (
        f"One hung server beside {size.beside_a_hung_one} others: from cycle to cycle of the others, "
        f"interval {size.hung_interval} s"
    )
    head = ("", "cycles", "median", "p95", "max", "/livez median", "p95", "max")
    rows = [
        (name, str(len(each)), *tail(each, "s", 3), *tail([1000 * delay for delay in delays[name]], "ms"))
        for name, each in gaps.items()
    ]
    return table(title, head, rows)


def _gaps(fleet: _FleetReaper, since: float) -> Iterator[float]:
    moments: dict[str, list[float]] = defaultdict(list)
    for event in fleet.log.named(*CYCLES, since=since):
        moments[event.fields["server"]].append(event.at)
    moments.pop(_HUNG, None)
    return (after - before for each in moments.values() for before, after in pairwise(each))
