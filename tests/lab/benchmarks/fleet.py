"""Many servers in one process: what each of them costs, and how soon all of them are observed."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Self

import psycopg

from tests.lab.report import NOTHING, figure, milliseconds, table
from tests.lab.world.observe import ProcessMemory, memory
from tests.lab.world.reaper import PORT, ReaperProcess, policy
from tests.lab.world.server import LabServer
from tests.system.policies import policy_file

_POLICIES: Final = 5
_AT_ONCE: Final = 4


def fleet(
    *,
    major: int,
    servers: tuple[int, ...] = (1, 50, 500),
    interval: int = 10,
    window: float = 20.0,
    on_each: int = 25,
) -> Iterator[str]:
    """CPU and memory of one process by its number of servers."""
    with _Databases(major, max(servers), on_each) as databases, TemporaryDirectory() as folder:
        taken = [_measure(databases, Path(folder), count, interval, window) for count in servers]
    title = (
        f"Fleet: one process, {on_each} sessions at each server, {_POLICIES} policies, interval {interval} s;"
        "\nCPU/cycle and RSS/server of each server after the first"
    )
    head = (
        "servers",
        "answers after",
        "all cycled after",
        "CPU/cycle",
        "of a core",
        "RSS",
        "PSS",
        "RSS/server",
    )
    yield table(title, head, [_row(each, taken[0], window) for each in taken])


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
            return _FleetCost(count, answers, all_cycled, cycles, spent, memory(reaper.pid))


def _policy_file(dsns: Sequence[str], interval: int) -> str:
    waiting = [policy(f"waits-{number}", 86_400, role=["app"]) for number in range(_POLICIES - 1)]
    soon = policy("leaked", 1, role=["app"])
    servers = [{"name": f"server-{number}", "dsn": dsn} for number, dsn in enumerate(dsns)]
    return policy_file(*waiting, soon, interval=f"{interval}s", min_interval="1s", servers=servers)


def _row(taken: _FleetCost, first: _FleetCost, window: float) -> Sequence[str]:
    servers, cycles = taken.servers - first.servers, taken.cycles - first.cycles
    each = (taken.cpu - first.cpu) / cycles if cycles > 0 else None
    return (
        str(taken.servers),
        figure(taken.answers, "s"),
        figure(taken.all_cycled, "s"),
        NOTHING if each is None else milliseconds(each, 2),
        figure(100 * taken.cpu / window, "%", 2),
        figure(taken.memory.rss, "MiB", 0),
        figure(taken.memory.pss, "MiB", 0),
        figure(1024 * (taken.memory.rss - first.memory.rss) / servers, "KiB", 0) if servers else NOTHING,
    )
