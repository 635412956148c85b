"""Many servers in one process: what each costs, how soon all are served, and who suffers for a hung one."""

import asyncio
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from reaper.demo.server import free_ports
from reaper.telemetry import events
from tests.lab.report import Scale
from tests.postgres.proxy import Proxy
from tests.postgres.sandbox import Role
from tests.system.policies import Keys, leaked, policy_file

from .bare import bare_cpu
from .ground import CYCLED, Daemon
from .pages import Pages
from .park import Park
from .proc import Memory, cpu_seconds, memory
from .shards import sharded
from .table import NOTHING, figure, table, tail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    servers: Sequence[int]
    interval: int
    window: float
    """Several intervals; once without probes for the CPU, once with them for the delays."""
    beside_a_hung_one: int
    hung_interval: int
    hung_window: float
    """Longer than a hung connection is waited for."""
    processes: Sequence[int]
    rounds: int = 2
    on_each: int = 25


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(
        servers=(1, 50, 500),
        processes=(1, 2, 4),
        interval=10,
        window=20,
        beside_a_hung_one=50,
        hung_interval=2,
        hung_window=20,
    ),
    Scale.QUICK: _Size(
        servers=(1, 50),
        processes=(1, 2),
        interval=5,
        window=10,
        beside_a_hung_one=20,
        hung_interval=2,
        hung_window=15,
    ),
    Scale.SMOKE: _Size(
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
_PATIENCE: Final = 120.0
_HUNG: Final = "hung"


def run(scale: Scale, major: int) -> Iterator[str]:
    """A table of sizes, one of several processes, one of a hung server."""
    size = _SIZES[scale]
    with (
        Park(major, servers=max(*size.servers, size.beside_a_hung_one + 1), on_each=size.on_each) as park,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(scratch)
        yield _sizes(park, folder, size)
        yield _sharded(park, folder, size)
        yield _beside_a_hung_one(park, folder, size)


class _Taken(NamedTuple):
    """What was measured at one number of servers."""

    servers: int
    answers: float
    all_cycled: float
    cycles: int
    cpu: float
    memory: Memory
    bare: float
    logins: Sequence[float]
    """When each server was logged in to for the first time."""
    delays: Sequence[float]


def _sizes(park: Park, folder: Path, size: _Size) -> str:
    taken = [_measure(park, folder, count, size) for count in size.servers]
    title = (
        f"Fleet: one process, {park.sessions} sessions at each server, {_POLICIES} policies, "
        f"interval {size.interval} s, HTTP on, record in a file;\nCPU/cycle and RSS/server of each server "
        "after the first, bare: one prepared statement on a held connection, client CPU"
    )
    head = (
        "servers",
        "answers after",
        "all cycled after",
        "CPU/cycle",
        "to bare",
        "of a core",
        "RSS",
        "PSS",
        "RSS/server",
        "logins/s",
        "most",
        "/livez median",
        "p95",
        "max",
    )
    return table(title, head, [_row(each, taken[0], size) for each in taken])


def _row(taken: _Taken, first: _Taken, size: _Size) -> Sequence[str]:
    more = taken.servers - first.servers
    each = figure(1024 * (taken.memory.rss - first.memory.rss) / more, "KiB", 0) if more else NOTHING
    return (
        str(taken.servers),
        figure(taken.answers, "s"),
        figure(taken.all_cycled, "s"),
        *_per_cycle(taken, first),
        figure(100 * taken.cpu / size.window, "%", 2),
        figure(taken.memory.rss, "MiB", 0),
        figure(taken.memory.pss, "MiB", 0),
        each,
        f"{len(taken.logins) / max(taken.logins[-1] - taken.logins[0], 1):.0f}",
        str(_most_in_a_second(taken.logins)),
        *tail([1000 * delay for delay in taken.delays], "ms"),
    )


def _most_in_a_second(moments: Sequence[float]) -> int:
    return max(bisect_left(moments, moment + 1) - number for number, moment in enumerate(moments))


def _per_cycle(taken: _Taken, first: _Taken) -> tuple[str, str]:
    """What each further server costs, without what the process costs by itself; that beside the bare one."""
    cycles = taken.cycles - first.cycles
    if cycles <= 0:
        return NOTHING, NOTHING
    each = (taken.cpu - first.cpu) / cycles
    return figure(1000 * each, "ms", 2), f"{each / taken.bare:.1f}"


def _measure(park: Park, folder: Path, count: int, size: _Size) -> _Taken:
    with ExitStack() as sessions, ExitStack() as stack:
        dsns = park.some(count, sessions)
        policies = policy_file(
            *_policies(_POLICIES), interval=f"{size.interval}s", min_interval="1s", servers=_servers(dsns)
        )
        daemon, pages = _watched(folder / f"{count} servers", policies, stack)
        answers = pages.wait("/livez", within=_PATIENCE)
        all_cycled = answers + pages.wait("/readyz", within=_PATIENCE)
        time.sleep(size.interval)  # the second look, sooner than the others, is behind us
        cycles, spent = pages.cycles(), cpu_seconds(daemon.pid)
        time.sleep(size.window)
        spent, cycles = cpu_seconds(daemon.pid) - spent, pages.cycles() - cycles
        held = memory(daemon.pid)
        delays = list(pages.delays(seconds=size.window))
        stack.close()  # its connections go, and those of the yardstick take their place
        bare = bare_cpu(dsns, rounds=round(size.window / size.interval), pause=size.interval)
        return _Taken(
            servers=count,
            answers=answers,
            all_cycled=all_cycled,
            cycles=cycles,
            cpu=spent,
            memory=held,
            bare=asyncio.run(bare),
            logins=[event.at for event in daemon.journal.named(events.SERVER_CONNECTED)],
            delays=delays,
        )


def _sharded(park: Park, folder: Path, size: _Size) -> str:
    servers = max(size.servers)
    with ExitStack() as stack:
        dsns = park.some(servers, stack)
    policies = policy_file(
        *_policies(_POLICIES), interval=f"{size.interval}s", min_interval="1s", servers=_servers(dsns)
    )
    return sharded(
        park, folder, servers=servers, processes=size.processes, policies=policies, window=size.window
    )


def _beside_a_hung_one(park: Park, folder: Path, size: _Size) -> str:
    """Cycles of the others while one server answers, and while it hears nothing; in turns, in one process."""
    with ExitStack() as stack:
        *others, one = park.some(size.beside_a_hung_one + 1, stack)
        proxy = stack.enter_context(Proxy(one))
        servers = [*_servers(others), {"name": _HUNG, "dsn": proxy.dsn(one)}]
        policies = policy_file(
            *_policies(_POLICIES), interval=f"{size.hung_interval}s", min_interval="1s", servers=servers
        )
        daemon, pages = _watched(folder / "hung", policies, stack, level="debug")
        gaps: dict[str, list[float]] = {"all answer": [], "one hangs": []}
        delays: dict[str, list[float]] = {name: [] for name in gaps}
        for _ in range(size.rounds):
            proxy.restore()
            pages.wait("/readyz", within=_PATIENCE)
            time.sleep(2 * size.hung_interval)
            for name, change in (("all answer", proxy.restore), ("one hangs", proxy.go_deaf)):
                change()
                since = time.time()
                delays[name] += pages.delays(seconds=size.hung_window)
                gaps[name] += _gaps(daemon, since)
        proxy.restore()
        daemon.stop()  # politely, before the proxy goes
    title = (
        f"One hung server beside {size.beside_a_hung_one} others: from cycle to cycle of the others, "
        f"interval {size.hung_interval} s"
    )
    head = ("", "cycles", "median", "p95", "max", "/livez median", "p95", "max")
    rows = [
        (name, str(len(gaps[name])), *tail(gaps[name], "s", 3), *_milliseconds(delays[name])) for name in gaps
    ]
    return table(title, head, rows)


def _gaps(daemon: Daemon, since: float) -> Iterator[float]:
    moments: dict[str, list[float]] = defaultdict(list)
    for event in daemon.journal.named(*CYCLED, since=since):
        moments[event.fields["server"]].append(event.at)
    moments.pop(_HUNG, None)
    return (after - before for each in moments.values() for before, after in pairwise(each))


def _milliseconds(delays: Sequence[float]) -> tuple[str, str, str]:
    return tail([1000 * delay for delay in delays], "ms")


def _watched(folder: Path, policies: str, stack: ExitStack, *, level: str = "info") -> tuple[Daemon, Pages]:
    port = _port()
    daemon = Daemon(folder, policies, "--listen", f"127.0.0.1:{port}", level=level)
    stack.enter_context(daemon)
    return daemon, Pages(port, running=lambda: daemon.running)


def _port() -> int:
    return next(free_ports())


def _servers(dsns: Sequence[str]) -> list[Keys]:
    return [{"name": f"server-{number}", "dsn": dsn} for number, dsn in enumerate(dsns)]


def _policies(count: int) -> list[Keys]:
    """Policies of which the last one alone is ever due, soon; the others wait for a day."""
    far = leaked(Role("app", ""), idle_for="1d")
    waiting = [{**far, "name": f"waits-{number}"} for number in range(count - 1)]
    return [*waiting, leaked(Role("app", ""), idle_for="1s")]
