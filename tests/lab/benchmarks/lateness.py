"""How late a session ends: the reaper beside PostgreSQL's own timeout and beside polling, at the same time.

Each way has its own sessions on one server, with a role of its own; each session begins at a time of its own.
Its deadline is when its client received the last answer, plus the limit; it is late by how much later the
client receives its end. The reapers lead in databases of their own.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final, Self

import psycopg

from reaper.telemetry import events
from tests.lab.clients.session import TERMINATED, TIMED_OUT, ClientSession, SessionAccount
from tests.lab.report import NOTHING, Scale, milliseconds, table, tail
from tests.lab.world.log import running
from tests.lab.world.observe import cpu_seconds
from tests.lab.world.reaper import ReaperProcess, policy, rules
from tests.lab.world.server import LabServer


@dataclass(frozen=True, slots=True, kw_only=True)
class _LatenessSize:
    sessions: int
    """Of each way."""
    begin_within: float
    interval: int
    limit: float
    """Longer than the interval: a shorter one may have passed before the first snapshot."""
    bystanders: int = 20
    """Sessions without a policy, so that the safety limit does not hold back the last ones."""


_SIZES: Final[Mapping[Scale, _LatenessSize]] = {
    Scale.FULL: _LatenessSize(sessions=200, begin_within=60, interval=10, limit=12),
    Scale.SMOKE: _LatenessSize(sessions=3, begin_within=0.5, interval=1, limit=1.5),
}
_MIN_INTERVALS: Final = {f"reaper, min_interval {each:g} s": each for each in (1, 0.25, 0.02)}
_NATIVE: Final = "idle_session_timeout"
_POLLING: Final = "polling"
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'polling' AND state = 'idle' AND state_change < now() - %s * interval '1 s'
"""
_GRACE: Final = 15.0
_FIRST_CYCLE: Final = 0.5
_SEED: Final = 12


@dataclass(slots=True, kw_only=True)
class _LatenessCost:
    """The snapshots that a way has taken, and its CPU on the server and here."""

    snapshots: int = 0
    server: float | None = None
    client: float | None = None


def run(scale: Scale, major: int) -> Iterator[str]:
    """The ways to end idle sessions, side by side."""
    size = _SIZES[scale]
    room = (len(_MIN_INTERVALS) + 2) * size.sessions + size.bystanders + 20
    with LabServer(major, max_connections=str(room)) as server, ExitStack() as stack:
        server.role(_NATIVE, idle_session_timeout=f"{size.limit}s")
        server.role(_POLLING)
        folder = Path(stack.enter_context(TemporaryDirectory()))
        reapers = [
            stack.enter_context(_LatenessReaper(server, folder, role, size)) for role in _MIN_INTERVALS
        ]
        ways = [_NATIVE, *_MIN_INTERVALS, _POLLING]
        late = asyncio.run(_measured(server, ways, size, polling := _LatenessCost()))
        costs = {_NATIVE: _LatenessCost(), _POLLING: polling} | {each.role: each.cost() for each in reapers}
    title = (
        f"Lateness: {size.sessions} sessions each, idle for {size.limit:g} s, interval {size.interval} s; "
        "the end that the client receives minus the deadline"
    )
    head = ("", "ended", "median", "p95", "max", "snapshots", "server CPU", "own CPU")
    yield table(title, head, [_row(way, late[way], costs[way]) for way in ways])


def _row(way: str, late: Sequence[float], cost: _LatenessCost) -> Sequence[str]:
    cpu = (NOTHING if each is None else milliseconds(each, 0) for each in (cost.server, cost.client))
    return (way, str(len(late)), *tail([1000 * each for each in late], "ms"), str(cost.snapshots), *cpu)


async def _measured(
    server: LabServer, ways: Sequence[str], size: _LatenessSize, polling: _LatenessCost
) -> Mapping[str, Sequence[float]]:
    port = server.port
    bystanders = [
        await ClientSession.open(port, SessionAccount(kind="bystander"), role="other")
        for _ in range(size.bystanders)
    ]
    dice = Random(_SEED)  # noqa: S311 (the same moments in every run)
    sessions = [
        asyncio.create_task(_session(port, way, dice.uniform(0, size.begin_within)))
        for way in ways
        for _ in range(size.sessions)
    ]
    patience = size.begin_within + size.limit + size.interval + _GRACE
    async with running(_poll(server.dsn, size, polling)):
        done, left = await asyncio.wait(sessions, timeout=patience)
    for session in left:
        session.cancel()
    for bystander in bystanders:
        bystander.close()
    accounts = [await each for each in done]
    return {
        way: [
            (each.ended_at or 0.0) - each.last.answered - size.limit
            for each in accounts
            if each.kind == way and each.sqlstate == (TIMED_OUT if way == _NATIVE else TERMINATED)
        ]
        for way in ways
    }


async def _session(port: int, way: str, begins_in: float) -> SessionAccount:
    """One session from its beginning to its end."""
    await asyncio.sleep(begins_in)
    account = SessionAccount(kind=way)
    session = await ClientSession.open(port, account, role=way)
    await session.ended.wait()
    return account


class _LatenessReaper:
    """A reaper that ends the sessions of one role."""

    def __init__(self, server: LabServer, folder: Path, role: str, size: _LatenessSize) -> None:
        self.role = server.role(role)
        self._server = server
        self._database = f"beside {role}"
        leaked = policy("leaked", size.limit, role=[role])
        dsn, min_interval = server.database(self._database), _MIN_INTERVALS[role]
        text = rules(dsn, leaked, interval=size.interval, min_interval=min_interval)
        self._process = ReaperProcess(folder / role, text, "--listen", "off")

    def __enter__(self) -> Self:
        self._process.start()
        self._process.wait(events.LEADS)
        time.sleep(_FIRST_CYCLE)
        self._backend = self._server.reaper_backend(self._database)
        self._before = self._spent()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()

    def cost(self) -> _LatenessCost:
        """Since its first cycle, with its end."""
        server, client = (now - then for now, then in zip(self._spent(), self._before, strict=True))
        return _LatenessCost(snapshots=self._process.stop() - 1, server=server, client=client)

    def _spent(self) -> tuple[float, float]:
        return cpu_seconds(self._backend), cpu_seconds(self._process.pid)


async def _poll(dsn: str, size: _LatenessSize, cost: _LatenessCost) -> None:
    """What cron would do, on a held connection: one statement each interval."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while True:
            await asyncio.sleep(size.interval)
            await connection.execute(_TERMINATE, (size.limit,))
            cost.snapshots += 1
            cost.server = cpu_seconds(connection.info.backend_pid)
