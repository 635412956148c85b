"""What a cycle costs, beside the bare statement that any tool must run: CPU of the server and of the client.

Real reapers and the statement take turns once a second on one server, so that other work on the machine
affects all of them. What counts is the ratio to the bare statement in the same seconds. One session in a
hundred is older than every limit, the others have just run a query. Nothing is terminated, so every cycle
finds the same sessions.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, LiteralString, NamedTuple

import psycopg

from tests.lab.clients.crowd import IdleCrowd
from tests.lab.report import milliseconds, ratios, table
from tests.lab.world.observe import cpu_seconds, free_mib
from tests.lab.world.reaper import PORT, ReaperProcess, rules
from tests.lab.world.server import REAPER, LabServer, lab_server
from tests.system.policies import Keys

_MIB_OF_A_SESSION: Final = 1.8
_TOUCH_EVERY: Final = 5
_ROLES: Final = tuple(f"app_{number}" for number in range(8))
_BARE: Final = "bare statement"
_DUE: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity
     WHERE usename LIKE 'app%%' AND application_name LIKE 'web-%%' AND state = 'idle'
       AND backend_type = 'client backend' AND state_change < now() - %s * interval '1 s'
"""


class _CycleCost(NamedTuple):
    """CPU seconds so far, or of one cycle."""

    server: float
    client: float


class _BareStatement:
    """The statement on a held connection of this process."""

    def __init__(self, dsn: str, limit: int) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._limit = limit
        self._client = 0.0
        self._runs = 0

    def tick(self) -> None:
        """Run it once."""
        began = time.process_time()
        self._connection.cursor(binary=True).execute(_DUE, (self._limit,), prepare=True).fetchall()
        self._client += time.process_time() - began
        self._runs += 1

    def cycles(self) -> int:
        return self._runs

    def spent(self) -> _CycleCost:
        return _CycleCost(cpu_seconds(self._connection.info.backend_pid), self._client)

    def close(self) -> None:
        self._connection.close()


class _CycleReaper(ReaperProcess):
    """A real reaper with a database of its own, and a cycle every second."""

    def __init__(self, server: LabServer, folder: Path, name: str, policies: Iterator[Keys]) -> None:
        text = rules(server.database(name), *policies, interval=1, min_interval=0.1)
        super().__init__(folder / name, text, listen=PORT)
        self.start()
        self.answers()
        self._backend = server.reaper_backend(name)

    def tick(self) -> None:
        """Do nothing: it has its own clock."""

    def cycles(self) -> int:
        return self.cycles_by_metrics()

    def spent(self) -> _CycleCost:
        return _CycleCost(cpu_seconds(self._backend), self.cpu())

    def close(self) -> None:
        self.__exit__()


Ways = Mapping[str, _BareStatement | _CycleReaper]


def cycle(
    *,
    major: int,
    sessions: tuple[int, ...] = (100, 1_000, 5_000),
    windows: int = 8,
    seconds: int = 5,
    limit: int = 40,
) -> Iterator[str]:
    """CPU of a whole cycle beside the bare statement, by the number of idle sessions.

    Each window has as many seconds as cycles; the limit is far longer than between two uses of a session.
    """
    for count in sessions:
        needed = count * _MIB_OF_A_SESSION
        if (free := free_mib()) < needed:
            yield f"Cycle: {count:,} idle sessions would take {needed:,.0f} MiB, {free:,.0f} are free"
            continue
        old = max(count // 100, 1)
        costs = _measured(count, old, major, windows, seconds, limit)
        rows = [_row(name, each, costs[_BARE]) for name, each in costs.items()]
        title = (
            f"Cycle: {count:,} idle sessions, {old} of them older than every limit; CPU a cycle, medians of "
            f"{windows} windows of {seconds} cycles;\nratios to the bare statement in the same window"
        )
        yield table(title, ("", "server", "client", "to bare", "p10", "p90"), rows)


def _measured(
    sessions: int, old: int, major: int, windows: int, seconds: int, limit: int
) -> Mapping[str, Sequence[_CycleCost]]:
    settings = {"max_connections": str(sessions + 30), "autovacuum": "off"}
    with (
        lab_server(major, **settings) as (server, folder),
        IdleCrowd(server.port) as crowd,
        ExitStack() as stack,
    ):
        for role in _ROLES:
            server.role(role)
        crowd.open(old, _ROLES)
        opened = time.monotonic()
        crowd.open(sessions - old, _ROLES)
        time.sleep(max(0, opened + limit + 1 - time.monotonic()))
        crowd.run(since=old)
        policies = {
            "reaper, 20 policies, none due": _policies(20, 50 * limit),
            "reaper, 20 policies, 1 % due": _policies(20, limit),
            "reaper, 200 policies, 1 % due": _policies(200, limit),
        }
        ways: dict[str, _BareStatement | _CycleReaper] = {
            _BARE: _BareStatement(server.dsn_of(REAPER), limit),
            **{name: _CycleReaper(server, folder, name, each) for name, each in policies.items()},
        }
        for way in ways.values():
            stack.callback(way.close)
        return _windows(ways, crowd, old, windows, seconds)


def _policies(count: int, limit: int) -> Iterator[Keys]:
    """Policies of every kind; their candidates are decided completely, and skipped since slots are free."""
    for number in range(count):
        ages: list[dict[str, object]] = [
            {"state": ["idle"], "idle_for": f"{limit + number}s"},
            {"state": ["idle"], "idle_for": f"{limit}s", "connected_for": f"{limit + number}s"},
            {"state": ["idle in transaction"], "idle_for": f"{1 + number}s"},
            {"state": ["active"], "running_for": f"{limit + number}s"},
        ]
        names = {"role": [f"app_{number % 8}"], "application": ["shop-*", "web-*"]}
        yield {
            "name": f"policy-{number}",
            "mode": "enforce",
            "match": {**names, **ages[number // 8 % 4]},
            "allowlist": {"application": ["metabase", "grafana-*"]},
            "when": {"slots_used": "100%"},
        }


def _windows(
    ways: Ways, crowd: IdleCrowd, old: int, windows: int, seconds: int
) -> Mapping[str, Sequence[_CycleCost]]:
    """The cost of one cycle in each window."""
    _tick(ways, crowd, old, seconds=2)  # statements are prepared, and every session was seen
    cycles = {name: way.cycles() for name, way in ways.items()}
    marks = [{name: way.spent() for name, way in ways.items()}]
    for _ in range(windows):
        _tick(ways, crowd, old, seconds=seconds)
        marks.append({name: way.spent() for name, way in ways.items()})
    costs = {}
    for name, way in ways.items():
        # Only here are metrics requested, so that no window contains the cost of it.
        each = max(way.cycles() - cycles[name], 1) / windows
        spent = pairwise(mark[name] for mark in marks)
        costs[name] = [
            _CycleCost((after.server - before.server) / each, (after.client - before.client) / each)
            for before, after in spent
        ]
    return costs


def _tick(ways: Ways, crowd: IdleCrowd, old: int, *, seconds: int) -> None:
    begin = time.monotonic()
    for second in range(1, seconds + 1):
        for way in ways.values():
            way.tick()
        if second % _TOUCH_EVERY == 0:
            crowd.run(since=old)
        time.sleep(max(0, begin + second - time.monotonic()))


def _row(name: str, costs: Sequence[_CycleCost], bare: Sequence[_CycleCost]) -> Sequence[str]:
    server, client = (median(part) for part in zip(*costs, strict=True))
    shares = [sum(each) / sum(base) for each, base in zip(costs, bare, strict=True)]
    return (name, milliseconds(server, 2), milliseconds(client, 2), *ratios(shares))
