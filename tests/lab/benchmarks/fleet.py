"""Many servers in one process: what each of them costs, and how soon all of them are observed."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

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
    with _databases(major, max(servers), on_each) as dsns, TemporaryDirectory() as folder:
        taken = [_measure(dsns[:count], on_each, Path(folder), interval, window) for count in servers]
    title = (
        f"Fleet: one process, {on_each} sessions at each server, {_POLICIES} policies, interval {interval} s;"
        "\nCPU/cycle and RSS/server of each server after the first"
    )
    head = ("servers", "answers after", "all cycled after", "CPU/cycle", "of a core", "RSS", "PSS")
    yield table(title, (*head, "RSS/server"), [_row(each, taken[0], window) for each in taken])


@contextmanager
def _databases(major: int, count: int, on_each: int) -> Iterator[Sequence[str]]:
    """The DSNs of databases that stand for servers, few enough on each PostgreSQL.

    A reaper observes all sessions of a PostgreSQL, in any database. With all databases on one, each "server"
    would have as many sessions as there are servers.
    """
    settings = {"max_connections": str(2 * on_each + 20)}
    servers = [LabServer(major, **settings) for _ in range(-(-count // on_each))]
    names = [f"server {number}" for number in range(on_each)]
    with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(stack.enter_context, servers))
        created = threads.map(lambda server: [server.database(name) for name in names], servers)
        yield [dsn for dsns in created for dsn in dsns][:count]


class _FleetCost(NamedTuple):
    """What was measured with one number of servers."""

    servers: int
    answers: float
    all_cycled: float
    cycles: int
    cpu: float
    memory: ProcessMemory


def _measure(dsns: Sequence[str], on_each: int, folder: Path, interval: int, window: float) -> _FleetCost:
    count = len(dsns)
    with ExitStack() as bystanders:
        for _ in range(-count % on_each):  # in place of the reaper's own sessions on the last PostgreSQL
            bystanders.enter_context(psycopg.connect(dsns[-1], user="other"))
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
