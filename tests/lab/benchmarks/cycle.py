"""What a whole cycle costs, beside the least that any reaper must do: CPU of the server and of the client.

All ways take turns in one loop on one server, so that whatever else the machine does falls on all of them;
what counts is the ratio to `bare` in the same round. One session in a hundred is older than every limit, the
others have just run a query. No way terminates anybody, so that every round finds the same.
"""

import asyncio
import resource
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from tests.lab.report import Scale
from tests.postgres.majors import tool
from tests.postgres.waiting import until
from tests.system.policies import Keys, policy_file

from .crowd import Crowd
from .ground import REAPER, Ground
from .proc import cpu_seconds, cpu_seconds_of_children, free_mib
from .shift import Shift
from .table import NOTHING, figure, quantile, table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    sessions: Sequence[int]
    rounds: int
    limit: int
    """Longer than three intervals, so that those who have just run a query are far from due."""
    interval: int


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(sessions=(100, 1_000, 5_000, 10_000), rounds=40, limit=40, interval=10),
    Scale.QUICK: _Size(sessions=(100, 1_000), rounds=15, limit=20, interval=5),
    Scale.SMOKE: _Size(sessions=(5,), rounds=2, limit=2, interval=1),
}
_MIB_OF_A_SESSION: Final = 1.8
"""With something to spare: there may be others on this machine."""
_ROLES: Final = tuple(f"app_{number}" for number in range(8))
_APPLICATIONS: Final = 20
_POLICIES: Final = 20
_MANY: Final = 200

_CONDEMNED: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity
     WHERE usename LIKE 'app%%' AND application_name LIKE 'web-%%' AND state = 'idle'
       AND backend_type = 'client backend' AND state_change < now() - %s * interval '1 s'
"""
_BARE: Final = "bare"


class _Way(NamedTuple):
    """One way to find out who is due, and whose CPU it takes."""

    name: str
    once: Callable[[], Awaitable[object]]
    backend: int | None


class _Cost(NamedTuple):
    """CPU seconds of one round."""

    server: float
    client: float


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table of ratios for each number of sessions that there is memory for."""
    size = _SIZES[scale]
    for sessions in size.sessions:
        needed = sessions * _MIB_OF_A_SESSION
        if (free := free_mib()) < needed:
            yield f"Cycle: {sessions:,} idle sessions would take {needed:,.0f} MiB, {free:,.0f} are free"
        else:
            yield asyncio.run(_measured(sessions, size, major))


async def _measured(sessions: int, size: _Size, major: int) -> str:
    with ExitStack() as stack:
        room = str(sessions + 30)
        ground = stack.enter_context(Ground(major, max_connections=room, autovacuum="off"))
        for role in _ROLES:
            ground.role(role)
        crowd = stack.enter_context(Crowd(ground.server.port))
        old = max(sessions // 100, 1)
        crowd.open(old, roles=_ROLES, applications=_APPLICATIONS)
        ripe = time.monotonic() + size.limit + 1
        crowd.open(sessions - old, roles=_ROLES, applications=_APPLICATIONS)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await asyncio.sleep(max(ripe - time.monotonic(), 0))
        async with AsyncExitStack() as held:
            ways = [way async for way in _ways(ground, folder, size, held)]
            costs = await _rounds(ways, crowd, old, size)
        until(lambda: not any(Path(f"/proc/{way.backend}").exists() for way in ways))
        cron = _cron(ground, major, size)
    return _shown(sessions, old, costs, cron, size)


async def _ways(ground: Ground, folder: Path, size: _Size, held: AsyncExitStack) -> AsyncIterator[_Way]:
    dsn = make_conninfo(ground.server.dsn, user=REAPER)
    link = held.enter_context(psycopg.connect(dsn, autocommit=True))
    yield _Way(_BARE, lambda: _bare(link, size.limit), link.info.backend_pid)
    for name, policies, everybody in (
        (f"reaper, {_POLICIES} policies, nobody due", _policies(_POLICIES, 50 * size.limit), False),
        (f"reaper, {_POLICIES} policies, 1 % due", _policies(_POLICIES, size.limit), False),
        (f"reaper, {_MANY} policies, 1 % due", _policies(_MANY, size.limit), False),
        ("reaper, a look at everybody", _policies(_POLICIES, size.limit), True),
        ("reaper, all old, of roles that no policy means", _policies(_POLICIES, 1, role="batch"), False),
    ):
        file = policy_file(*policies, interval=f"{size.interval}s", min_interval="100ms")
        shift = Shift(dsn, file, folder / f"{name}.jsonl", everybody=everybody)
        await held.enter_async_context(shift)
        yield _Way(name, shift.cycle, shift.backend)
    fetching = held.enter_context(psycopg.connect(dsn, autocommit=True))
    yield _Way(
        "all columns, filter in the client",
        lambda: _fetch_all(fetching, size.limit),
        fetching.info.backend_pid,
    )


def _policies(count: int, limit: int, role: str = "app") -> Iterator[Keys]:
    """Policies of every kind; whom they mean is judged in full, and spared since there are slots left."""
    for number in range(count):
        match: dict[str, object] = {
            "role": [f"{role}_{number % 8}"],
            "application": ["shop-*", "web-*"],
        }
        match |= [
            {"state": ["idle"], "idle_for": f"{limit + number}s"},
            {"state": ["idle"], "idle_for": f"{limit}s", "connected_for": f"{limit + number}s"},
            {"state": ["idle in transaction"], "idle_for": f"{1 + number}s"},
            {"state": ["active"], "running_for": f"{limit + number}s"},
        ][number // 8 % 4]
        yield {
            "name": f"policy-{number}",
            "mode": "enforce",
            "match": match,
            "allowlist": {"application": ["metabase", "grafana-*"]},
            "when": {"slots_used": "100%"},
        }


async def _bare(link: psycopg.Connection, limit: int) -> None:
    link.cursor(binary=True).execute(_CONDEMNED, (limit,), prepare=True).fetchall()


async def _fetch_all(link: psycopg.Connection, limit: int) -> list[Any]:
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


async def _rounds(ways: Sequence[_Way], crowd: Crowd, old: int, size: _Size) -> Mapping[str, Sequence[_Cost]]:
    costs: dict[str, list[_Cost]] = {way.name: [] for way in ways}
    touched = 0.0
    for number in range(-2, size.rounds):  # the first two prepare the statements
        if time.monotonic() - touched > size.interval / 2:
            crowd.touch(but=old)
            touched = time.monotonic()
        for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
            cost = await _cost(way)
            if number >= 0:
                costs[way.name].append(cost)
    return costs


async def _cost(way: _Way) -> _Cost:
    assert way.backend
    server, client = cpu_seconds(way.backend), time.process_time()
    await way.once()
    client = time.process_time() - client
    return _Cost(cpu_seconds(way.backend) - server, client)


def _cron(ground: Ground, major: int, size: _Size) -> _Cost | None:
    """The mean of some runs of psql, a connection each; the CPU of their backends by the postmaster."""
    psql = tool("psql", major=major)
    if psql is None:
        return None
    command = [str(psql), "-qAtX", "-c", _CONDEMNED.replace("%s", str(size.limit)).replace("%%", "%")]
    command += [make_conninfo(ground.server.dsn, user=REAPER)]
    runs = max(size.rounds // 2, 2)
    postmaster = int((ground.server.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
    server, client = cpu_seconds_of_children(postmaster), _children()
    for _ in range(runs):
        subprocess.run(command, check=True, capture_output=True)
    client = _children() - client
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql'"
    until(lambda: ground.admin.execute(left).fetchone() == (0,))
    return _Cost((cpu_seconds_of_children(postmaster) - server) / runs, client / runs)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _shown(
    sessions: int, old: int, costs: Mapping[str, Sequence[_Cost]], cron: _Cost | None, size: _Size
) -> str:
    bare = [sum(cost) for cost in costs[_BARE]]
    rows = []
    for name, each in costs.items():
        ratios = [sum(cost) / base for cost, base in zip(each, bare, strict=True)]
        server, client = (median(part) for part in zip(*each, strict=True))
        rows.append((name, *_milliseconds(_Cost(server, client)), *_ratios(ratios)))
    if cron:
        rows.append(
            (
                "psql from cron, the statement of `bare`",
                *_milliseconds(cron),
                *_ratios([sum(cron) / median(bare)]),
            )
        )
    title = (
        f"Cycle: {sessions:,} idle sessions, {old} of them older than every limit; CPU, median of "
        f"{size.rounds} rounds; ratios to `bare` of the same round"
    )
    return table(title, ("", "server", "client", "to bare", "p10", "p90"), rows)


def _milliseconds(cost: _Cost) -> tuple[str, str]:
    return figure(1000 * cost.server, "ms", 2), figure(1000 * cost.client, "ms", 2)


def _ratios(ratios: Sequence[float]) -> tuple[str, str, str]:
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}", NOTHING, NOTHING
    return f"{median(ratios):.2f}", f"{quantile(ratios, 0.1):.2f}", f"{quantile(ratios, 0.9):.2f}"
