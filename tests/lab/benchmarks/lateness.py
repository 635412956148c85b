"""How late a session ends: the reaper beside PostgreSQL's own timeout and beside polling, in the same minute.

Every way has its own sessions, of a role of its own, on one server; each session begins at a moment of its
own. Its deadline is the moment at which it heard that it is idle, plus the limit; it is late by how much
later it hears of its end. The reapers lead in databases of their own.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Final, Self

import psycopg

from reaper.telemetry import events
from tests.lab.report import Scale
from tests.postgres.sandbox import Role
from tests.system.policies import leaked, policy_file

from .ground import Daemon, Ground
from .proc import cpu_seconds
from .sessions import TERMINATED, TIMED_OUT, End, Session
from .table import NOTHING, figure, table, tail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    sessions: int
    """Of each way."""
    begin_within: float
    interval: int
    limit: float
    """Longer than the interval: what is shorter can be overdue before it is seen at all."""
    bystanders: int = 20
    """Never idle for long enough in a policy's eyes; without them the last ones would be braked."""


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(sessions=200, begin_within=60, interval=10, limit=12),
    Scale.QUICK: _Size(sessions=50, begin_within=10, interval=2, limit=3),
    Scale.SMOKE: _Size(sessions=3, begin_within=0.5, interval=1, limit=1.5),
}
_MIN_INTERVALS: Final = {f"reaper, min_interval {each}": each for each in ("1s", "250ms", "20ms")}
_NATIVE: Final = "idle_session_timeout"
_POLL: Final = "polling"
_CONDEMNED: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'polling' AND state = 'idle' AND state_change < now() - %s * interval '1 s'
"""
_GRACE: Final = 15.0
_FIRST_CYCLE: Final = 0.5
_SEED: Final = 12


@dataclass(slots=True, kw_only=True)
class _Cost:
    """What a way has taken: looks at the server, CPU there and here."""

    reads: int = 0
    server: float = 0.0
    client: float | None = 0.0


def run(scale: Scale, major: int) -> Iterator[str]:
    """The ways to end idle sessions, side by side."""
    size = _SIZES[scale]
    room = (len(_MIN_INTERVALS) + 2) * size.sessions + size.bystanders + 20
    with Ground(major, max_connections=str(room)) as ground, ExitStack() as stack:
        ground.role("bystander")
        ground.role(_NATIVE, idle_session_timeout=f"{size.limit}s")
        ground.role(_POLL)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        watches = [
            stack.enter_context(_Watch(ground, folder, way, min_interval, size))
            for way, min_interval in _MIN_INTERVALS.items()
        ]
        poller = stack.enter_context(_Poller(ground, size))
        ways = [_NATIVE, *_MIN_INTERVALS, _POLL]
        late = asyncio.run(_all(ground.server.port, ways, size))
        costs = {_NATIVE: None, _POLL: poller.cost()} | {watch.role: watch.cost() for watch in watches}
    title = (
        f"Lateness: {size.sessions} sessions each, idle for {size.limit:g} s, interval {size.interval} s; "
        "the end that the client hears of minus the deadline"
    )
    head = ("", "ended", "median", "p95", "max", "reads", "server CPU", "own CPU")
    yield table(title, head, [_row(way, late[way], costs[way]) for way in ways])


def _row(way: str, late: Sequence[float], cost: _Cost | None) -> Sequence[str]:
    figures = tail([1000 * each for each in late], "ms")
    if cost is None:
        return (way, str(len(late)), *figures, "0", NOTHING, NOTHING)
    own = NOTHING if cost.client is None else figure(1000 * cost.client, "ms", 0)
    return (way, str(len(late)), *figures, str(cost.reads), figure(1000 * cost.server, "ms", 0), own)


async def _all(port: int, ways: Sequence[str], size: _Size) -> Mapping[str, Sequence[float]]:
    bystanders = [await Session.open(port, role="bystander") for _ in range(size.bystanders)]
    dice = Random(_SEED)  # noqa: S311 (the same moments in every run)
    lives = [
        asyncio.create_task(_life(port, way, dice.uniform(0, size.begin_within), size.limit))
        for way in ways
        for _ in range(size.sessions)
    ]
    patience = size.begin_within + size.limit + size.interval + _GRACE
    done, left = await asyncio.wait(lives, timeout=patience)
    for life in left:
        life.cancel()
    for bystander in bystanders:
        await bystander.close()
    ends = [await life for life in done]
    return {way: [late for ended, late in ends if ended == way] for way in ways}


async def _life(port: int, way: str, begins_in: float, limit: float) -> tuple[str, float]:
    """One session from its beginning to its end: its way, and how late it ended."""
    await asyncio.sleep(begins_in)
    session = await Session.open(port, role=way)
    end = await session.end()
    await session.close()
    return (way if _as_meant(way, end) else "otherwise"), end.at - session.idle_since - limit


def _as_meant(way: str, end: End) -> bool:
    return end.sqlstate == (TIMED_OUT if way == _NATIVE else TERMINATED)


class _Watch:
    """A reaper that ends the sessions of one role."""

    def __init__(self, ground: Ground, folder: Path, role: str, min_interval: str, size: _Size) -> None:
        self.role = ground.role(role)
        self._ground = ground
        self._database = f"beside {role}"
        server = {"name": "server", "dsn": ground.database(self._database)}
        policies = policy_file(
            leaked(Role(role, ""), idle_for=f"{1000 * size.limit:g}ms"),
            interval=f"{size.interval}s",
            min_interval=min_interval,
            servers=[server],
        )
        self._daemon = Daemon(folder / min_interval, policies, "--listen", "off")

    def __enter__(self) -> Self:
        self._daemon.__enter__()
        self._daemon.wait(events.LEADS)
        time.sleep(_FIRST_CYCLE)
        self._backend = self._ground.backend(self._database)
        self._before = self._spent()
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.__exit__()

    def cost(self) -> _Cost:
        """All since its first cycle, and its end."""
        server, client = (now - then for now, then in zip(self._spent(), self._before, strict=True))
        return _Cost(reads=self._daemon.stop() - 1, server=server, client=client)

    def _spent(self) -> tuple[float, float]:
        return cpu_seconds(self._backend), cpu_seconds(self._daemon.pid)


class _Poller:
    """What cron would do, on a connection that it keeps: one statement each interval."""

    def __init__(self, ground: Ground, size: _Size) -> None:
        self._dsn = ground.server.dsn
        self._size = size
        self._reads = 0
        self._stop = Event()
        self._thread = Thread(target=self._poll, name="poller", daemon=True)

    def __enter__(self) -> Self:
        self._connection = psycopg.connect(self._dsn, autocommit=True)
        self._backend = self._connection.info.backend_pid
        self._before = cpu_seconds(self._backend)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def cost(self) -> _Cost:
        """Since it began; what a cron job would cost here is not its measure."""
        return _Cost(reads=self._reads, server=cpu_seconds(self._backend) - self._before, client=None)

    def _poll(self) -> None:
        while not self._stop.wait(self._size.interval):
            self._connection.execute(_CONDEMNED, (self._size.limit,))
            self._reads += 1
