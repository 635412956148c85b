"""What a cycle costs, beside the least that any reaper must do: CPU of the server and of the client.

Real reapers and plain statements take turns once a second on one server, so that other work on the machine
affects all of them. What counts is the ratio to the bare statement in the same seconds. One session in a
hundred is older than every limit, the others have just run a query. Nothing is terminated, so every cycle
finds the same.
"""

import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, LiteralString, NamedTuple

import psycopg

from tests.lab.clients.crowd import IdleCrowd
from tests.lab.report import Scale, milliseconds, ratios, table
from tests.lab.world.observe import HttpPort, cpu_seconds, cpu_seconds_of_children, free_mib
from tests.lab.world.reaper import ReaperProcess, rules
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.majors import tool
from tests.postgres.waiting import until
from tests.system.policies import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class _CycleSize:
    sessions: Sequence[int]
    windows: int
    seconds: int
    """Of each window: as many cycles of each reaper."""
    limit: int
    """Seconds: far longer than between two uses of the young sessions."""


_SIZES: Final[Mapping[Scale, _CycleSize]] = {
    Scale.FULL: _CycleSize(sessions=(100, 1_000, 5_000, 10_000), windows=8, seconds=5, limit=40),
    Scale.SMOKE: _CycleSize(sessions=(5,), windows=2, seconds=1, limit=1),
}
_MIB_OF_A_SESSION: Final = 1.8
_TOUCH_EVERY: Final = 5
_ROLES: Final = tuple(f"app_{number}" for number in range(8))
_BARE: Final = "bare statement"
_ALL_COLUMNS: Final = "all columns, filter in the client"
_DUE: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity
     WHERE usename LIKE 'app%%' AND application_name LIKE 'web-%%' AND state = 'idle'
       AND backend_type = 'client backend' AND state_change < now() - %s * interval '1 s'
"""


class _CycleCost(NamedTuple):
    """CPU seconds."""

    server: float
    client: float

    def minus(self, other: "_CycleCost") -> "_CycleCost":
        """The difference."""
        return _CycleCost(self.server - other.server, self.client - other.client)

    def over(self, count: float) -> "_CycleCost":
        """The share of each of these."""
        return _CycleCost(self.server / count, self.client / count)


class _Statement:
    """A statement on a held connection of this process."""

    def __init__(self, dsn: str, run: Callable[[psycopg.Connection], object]) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._run = run
        self._client = 0.0

    def wait(self) -> None:
        """Do nothing: it is connected."""

    def tick(self) -> None:
        """Run it once."""
        began = time.process_time()
        self._run(self._connection)
        self._client += time.process_time() - began

    def spent(self) -> _CycleCost:
        return _CycleCost(cpu_seconds(self._connection.info.backend_pid), self._client)

    def close(self) -> None:
        self._connection.close()


class _CycleReaper:
    """A real reaper with a database of its own, and a cycle every second."""

    def __init__(self, server: LabServer, folder: Path, name: str, policies: Iterator[Keys]) -> None:
        port = HttpPort()
        text = rules(server.database(name), *policies, interval=1, min_interval=0.1)
        self._process = ReaperProcess(folder / name, text, "--listen", port.at)
        self._process.start()
        self.port = HttpPort(lambda: self._process.running, at=port.at)
        self._server, self._name, self._backend = server, name, 0

    def wait(self) -> None:
        """Wait for its first cycle."""
        self.port.wait("/readyz")
        self._backend = self._server.reaper_backend(self._name)

    def tick(self) -> None:
        """Do nothing: it has its own clock."""

    def spent(self) -> _CycleCost:
        return _CycleCost(cpu_seconds(self._backend), cpu_seconds(self._process.pid))

    def close(self) -> None:
        self._process.__exit__()


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table of ratios for each number of sessions for which there is memory."""
    size = _SIZES[scale]
    for sessions in size.sessions:
        needed = sessions * _MIB_OF_A_SESSION
        if (free := free_mib()) < needed:
            yield f"Cycle: {sessions:,} idle sessions would take {needed:,.0f} MiB, {free:,.0f} are free"
        else:
            yield _measured(sessions, size, major)


def _measured(sessions: int, size: _CycleSize, major: int) -> str:
    with ExitStack() as stack:
        server = LabServer(major, max_connections=str(sessions + 30), autovacuum="off")
        stack.enter_context(server)
        for role in _ROLES:
            server.role(role)
        folder = Path(stack.enter_context(TemporaryDirectory()))
        crowd = stack.enter_context(IdleCrowd(server.port))
        old = max(sessions // 100, 1)
        crowd.open(old, _ROLES)
        opened = time.monotonic()
        crowd.open(sessions - old, _ROLES)
        time.sleep(max(0, opened + size.limit + 1 - time.monotonic()))
        crowd.run(since=old)
        ways = _ways(server, folder, size.limit)
        for way in ways.values():
            stack.callback(way.close)
            way.wait()
        costs = _windows(ways, crowd, old, size)
        cron = _cron(server, major, size)
    rows = [_row(name, each, costs[_BARE]) for name, each in costs.items()]
    rows += [_row("psql from cron, the bare statement", [cron], [_median(costs[_BARE])])] if cron else []
    title = (
        f"Cycle: {sessions:,} idle sessions, {old} of them older than every limit; CPU a cycle, medians of "
        f"{size.windows} windows of {size.seconds} cycles;\nratios to the bare statement in the same window"
    )
    return table(title, ("", "server", "client", "to bare", "p10", "p90"), rows)


def _ways(server: LabServer, folder: Path, limit: int) -> dict[str, _Statement | _CycleReaper]:
    dsn = server.dsn_of(REAPER)
    everyone = {
        "name": "capped",
        "match": {"state": ["idle"], "idle_for": f"{limit}s", "role": ["app_*"]},
        "max_sessions": {"count": 100_000, "per": ["role"]},
    }
    reapers = {
        "reaper, 20 policies, none due": _policies(20, 50 * limit),
        "reaper, 20 policies, 1 % due": _policies(20, limit),
        "reaper, 200 policies, 1 % due": _policies(200, limit),
        "reaper, every session observed": iter([*_policies(20, limit), everyone]),
        "reaper, all old, of roles without a policy": _policies(20, 1, role="batch"),
    }
    return {
        _BARE: _Statement(dsn, lambda link: _bare(link, limit)),
        **{name: _CycleReaper(server, folder, name, policies) for name, policies in reapers.items()},
        _ALL_COLUMNS: _Statement(dsn, lambda link: _all_columns(link, limit)),
    }


def _policies(count: int, limit: int, role: str = "app") -> Iterator[Keys]:
    """Policies of every kind; their candidates are decided completely, and skipped since slots are free."""
    for number in range(count):
        ages: list[dict[str, object]] = [
            {"state": ["idle"], "idle_for": f"{limit + number}s"},
            {"state": ["idle"], "idle_for": f"{limit}s", "connected_for": f"{limit + number}s"},
            {"state": ["idle in transaction"], "idle_for": f"{1 + number}s"},
            {"state": ["active"], "running_for": f"{limit + number}s"},
        ]
        who = {"role": [f"{role}_{number % 8}"], "application": ["shop-*", "web-*"]}
        yield {
            "name": f"policy-{number}",
            "mode": "enforce",
            "match": {**who, **ages[number // 8 % 4]},
            "allowlist": {"application": ["metabase", "grafana-*"]},
            "when": {"slots_used": "100%"},
        }


def _bare(link: psycopg.Connection, limit: int) -> object:
    return link.cursor(binary=True).execute(_DUE, (limit,), prepare=True).fetchall()


def _all_columns(link: psycopg.Connection, limit: int) -> object:
    cursor = link.cursor(binary=True).execute("SELECT *, now() AS now FROM pg_stat_activity", prepare=True)
    names = [column.name for column in cursor.description or ()]
    rows = (dict(zip(names, row, strict=True)) for row in cursor.fetchall())
    return [
        row["pid"]
        for row in rows
        if row["state"] == "idle"
        and row["usename"].startswith("app")
        and (row["now"] - row["state_change"]).total_seconds() > limit
    ]


def _windows(
    ways: Mapping[str, _Statement | _CycleReaper], crowd: IdleCrowd, old: int, size: _CycleSize
) -> Mapping[str, Sequence[_CycleCost]]:
    """The cost of one cycle in each window."""
    _tick(ways, crowd, old, seconds=2)  # statements are prepared, and every session was seen
    cycles = {name: way.port.cycles() for name, way in ways.items() if isinstance(way, _CycleReaper)}
    marks = [{name: way.spent() for name, way in ways.items()}]
    for _ in range(size.windows):
        _tick(ways, crowd, old, seconds=size.seconds)
        marks.append({name: way.spent() for name, way in ways.items()})
    costs = {}
    for name, way in ways.items():
        # Only here is a page requested, so that no window contains the cost of it.
        done = (
            way.port.cycles() - cycles[name] if isinstance(way, _CycleReaper) else size.windows * size.seconds
        )
        each = max(done, 1) / size.windows
        costs[name] = [after[name].minus(before[name]).over(each) for before, after in pairwise(marks)]
    return costs


def _tick(ways: Mapping[str, _Statement | _CycleReaper], crowd: IdleCrowd, old: int, *, seconds: int) -> None:
    begin = time.monotonic()
    for second in range(1, seconds + 1):
        for way in ways.values():
            way.tick()
        if second % _TOUCH_EVERY == 0:
            crowd.run(since=old)
        time.sleep(max(0, begin + second - time.monotonic()))


def _cron(server: LabServer, major: int, size: _CycleSize) -> _CycleCost | None:
    """The mean of some runs of psql, each with a connection; the CPU of their backends by the postmaster."""
    psql = tool("psql", major=major)
    if psql is None:
        return None
    statement = _DUE.replace("%s", str(size.limit)).replace("%%", "%")
    command = [str(psql), "-qAtX", "-c", statement, server.dsn_of(REAPER)]
    runs = max(size.windows * size.seconds // 2, 2)
    before = _CycleCost(cpu_seconds_of_children(server.postmaster), _children())
    for _ in range(runs):
        subprocess.run(command, check=True, capture_output=True)
    client = _children()
    until(lambda: not server.query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'psql'"))
    return _CycleCost(cpu_seconds_of_children(server.postmaster), client).minus(before).over(runs)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _median(costs: Sequence[_CycleCost]) -> _CycleCost:
    return _CycleCost(median(each.server for each in costs), median(each.client for each in costs))


def _row(name: str, costs: Sequence[_CycleCost], bare: Sequence[_CycleCost]) -> Sequence[str]:
    middle = _median(costs)
    shares = [sum(each) / sum(base) for each, base in zip(costs, bare, strict=True)]
    return (name, milliseconds(middle.server, 2), milliseconds(middle.client, 2), *ratios(shares))
