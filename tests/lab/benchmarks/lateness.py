"""How late a session ends: the reaper beside PostgreSQL's own timeout, at the same time.

Each way has its own sessions on one server, with a role of its own; each session begins at a time of its own.
Its deadline is when its client received the last answer, plus the limit; its lateness is how much later the
client receives its end. The reapers lead in databases of their own.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from random import Random
from typing import Final

from reaper.telemetry import events
from tests.lab.clients.session import ClientSession, SessionAccount
from tests.lab.report import table, tail
from tests.lab.world.reaper import ReaperProcess, policy, rules
from tests.lab.world.server import LabServer, lab_server

_MIN_INTERVALS: Final = {f"reaper with min_interval {each:g} s": each for each in (1, 0.25, 0.02)}
_NATIVE: Final = "idle_session_timeout"
_WAYS: Final = (_NATIVE, *_MIN_INTERVALS)
_BYSTANDERS: Final = 20
"""Sessions without a policy, so that the safety limit does not hold back the last ones."""
_GRACE: Final = 15.0
_SEED: Final = 12


def lateness(
    *, major: int, sessions: int = 200, begin_within: float = 60.0, interval: int = 10, limit: float = 12.0
) -> Iterator[str]:
    """How late idle sessions end, beside the server's own timeout.

    The limit is longer than the interval: a shorter one may have passed before the first snapshot.
    """
    room = str(len(_WAYS) * sessions + _BYSTANDERS + 20)
    with lab_server(major, max_connections=room) as (server, folder), ExitStack() as stack:
        server.role(_NATIVE, idle_session_timeout=f"{limit}s")
        for role, min_interval in _MIN_INTERVALS.items():
            leaked = policy("leaked", limit, role=[server.role(role)])
            dsn = server.database(f"beside {role}")
            text = rules(dsn, leaked, interval=interval, min_interval=min_interval)
            stack.enter_context(ReaperProcess(folder / role, text)).wait(events.LEADS)
        patience = begin_within + limit + interval + _GRACE
        ended = asyncio.run(_measured(server, sessions, begin_within, patience))
    title = (
        f"Lateness: {sessions} sessions each, idle for {limit:g} s, interval {interval} s; "
        "the end that the client receives minus the deadline"
    )
    late = {way: [seconds - limit for seconds in ended[way]] for way in _WAYS}
    rows = [(way, str(len(late[way])), *tail(late[way])) for way in _WAYS]
    yield table(title, ("", "ended", "median", "p95", "max"), rows)


async def _measured(
    server: LabServer, count: int, begin_within: float, patience: float
) -> Mapping[str, Sequence[float]]:
    """The seconds from the last answer to the end of each session."""
    dice = Random(_SEED)  # noqa: S311 (the same moments in every run)
    bystanders = [
        await ClientSession.open(server.port, SessionAccount(kind="bystander"), role="other")
        for _ in range(_BYSTANDERS)
    ]
    sessions = [
        asyncio.create_task(_session(server.port, way, dice.uniform(0, begin_within)))
        for way in _WAYS
        for _ in range(count)
    ]
    done, left = await asyncio.wait(sessions, timeout=patience)
    for session in left:
        session.cancel()
    for bystander in bystanders:
        bystander.close()
    accounts = [await each for each in done]
    return {
        way: [(each.ended_at or 0.0) - each.last.answered for each in accounts if each.kind == way]
        for way in _WAYS
    }


async def _session(port: int, way: str, begins_in: float) -> SessionAccount:
    """One session from its beginning to its end."""
    await asyncio.sleep(begins_in)
    account = SessionAccount(kind=way)
    session = await ClientSession.open(port, account, role=way)
    await session.ended.wait()
    return account
