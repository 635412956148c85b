"""How late a session ends: the reaper beside PostgreSQL's own timeout and beside polling, at the same time.

Each way has its own sessions on one server, with a role of its own; each session begins at a time of its own.
Its deadline is when its client received the last answer, plus the limit; its lateness is how much later the
client receives its end. The reapers lead in databases of their own.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Final

import psycopg

from reaper.telemetry import events
from tests.lab.clients.session import TERMINATED, TIMED_OUT, ClientSession, SessionAccount
from tests.lab.report import table, tail
from tests.lab.world.observe import running
from tests.lab.world.reaper import ReaperProcess, policy, rules
from tests.lab.world.server import LabServer, lab_server

_MIN_INTERVALS: Final = {f"reaper, min_interval {each:g} s": each for each in (1, 0.25, 0.02)}
_NATIVE: Final = "idle_session_timeout"
_POLLING: Final = "polling"
_WAYS: Final = (_NATIVE, *_MIN_INTERVALS, _POLLING)
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'polling' AND state = 'idle' AND state_change < now() - %s * interval '1 s'
"""
_BYSTANDERS: Final = 20
"""Sessions without a policy, so that the safety limit does not hold back the last ones."""
_GRACE: Final = 15.0
_SEED: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _LatenessRun:
    """The arguments of a run."""

    sessions: int
    begin_within: float
    interval: int
    limit: float


def lateness(
    *, major: int, sessions: int = 200, begin_within: float = 60.0, interval: int = 10, limit: float = 12.0
) -> Iterator[str]:
    """How late idle sessions end, beside other ways to end them.

    The limit is longer than the interval: a shorter one may have passed before the first snapshot.
    """
    run = _LatenessRun(sessions=sessions, begin_within=begin_within, interval=interval, limit=limit)
    room = str(len(_WAYS) * sessions + _BYSTANDERS + 20)
    with lab_server(major, max_connections=room) as (server, folder), ExitStack() as stack:
        server.role(_NATIVE, idle_session_timeout=f"{limit}s")
        server.role(_POLLING)
        for role, min_interval in _MIN_INTERVALS.items():
            leaked = policy("leaked", limit, role=[server.role(role)])
            dsn = server.database(f"beside {role}")
            text = rules(dsn, leaked, interval=interval, min_interval=min_interval)
            stack.enter_context(ReaperProcess(folder / role, text)).wait(events.LEADS)
        late = asyncio.run(_measured(server, run))
    title = (
        f"Lateness: {sessions} sessions each, idle for {limit:g} s, interval {interval} s; "
        "the end that the client receives minus the deadline"
    )
    rows = [(way, str(len(late[way])), *tail(late[way])) for way in _WAYS]
    yield table(title, ("", "ended", "median", "p95", "max"), rows)


async def _measured(server: LabServer, run: _LatenessRun) -> Mapping[str, Sequence[float]]:
    port, dice = server.port, Random(_SEED)  # noqa: S311 (the same moments in every run)
    bystanders = [
        await ClientSession.open(port, SessionAccount(kind="bystander"), role="other")
        for _ in range(_BYSTANDERS)
    ]
    sessions = [
        asyncio.create_task(_session(port, way, dice.uniform(0, run.begin_within)))
        for way in _WAYS
        for _ in range(run.sessions)
    ]
    async with running(_poll(server.dsn, run)):
        done, left = await asyncio.wait(
            sessions, timeout=run.begin_within + run.limit + run.interval + _GRACE
        )
    for session in left:
        session.cancel()
    for bystander in bystanders:
        bystander.close()
    accounts = [await each for each in done]
    return {
        way: [
            (each.ended_at or 0.0) - each.last.answered - run.limit
            for each in accounts
            if each.kind == way and each.sqlstate == (TIMED_OUT if way == _NATIVE else TERMINATED)
        ]
        for way in _WAYS
    }


async def _session(port: int, way: str, begins_in: float) -> SessionAccount:
    """One session from its beginning to its end."""
    await asyncio.sleep(begins_in)
    account = SessionAccount(kind=way)
    session = await ClientSession.open(port, account, role=way)
    await session.ended.wait()
    return account


async def _poll(dsn: str, run: _LatenessRun) -> None:
    """Run one statement each interval on a held connection, as cron would."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while True:
            await asyncio.sleep(run.interval)
            await connection.execute(_TERMINATE, (run.limit,))
