"""A pid that is used again between observation and termination: the new session must not be touched.

In a pid namespace of its own the kernel accepts a choice of the next pid, so every newcomer gets the pid of
the session that has just left.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from tests.lab.report import Report, figures, table
from tests.lab.world.isolation import LAST_PID
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.reaping import Reaper, policy
from tests.postgres.waiting import until

_OURS: Final = "the guarded statement of the reaper"
_APPLICATION: Final = "sleeper"
_PID: Final[LiteralString] = "SELECT pid FROM pg_stat_activity WHERE state = 'idle' AND application_name = %s"
_WAITING: Final[LiteralString] = """
    SELECT state = 'idle' AND wait_event = 'ClientRead' FROM pg_stat_activity WHERE application_name = %s
"""
_BY_PID: Final[LiteralString] = "SELECT pg_terminate_backend(%s)"
_IF_IDLE: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND state = 'idle'
"""

Act = Callable[[], object]
"""Terminates what was observed."""
Observe = Callable[[], Act]
"""Observes the one session that there is."""


@dataclass(slots=True)
class _PidToll:
    """What one tool did to newcomers."""

    newcomers: int = 0
    terminated: int = 0
    other_pid: int = 0
    """Newcomers that got another pid, so that nothing was tried."""


def pid_reuse(*, pids: int, major: int) -> Report:
    """Try each tool on this many newcomers with the pid of an observed session."""
    with (
        LabServer(major, autovacuum="off") as server,
        Reaper(server.dsn_of(REAPER)) as reaper,
        psycopg.connect(server.dsn, autocommit=True) as admin,
    ):
        client = make_conninfo(server.dsn_of("app"), application_name=_APPLICATION)
        outcomes = Counter[str]()
        tools: Mapping[str, Observe] = {
            _OURS: lambda: _guarded(reaper, outcomes),
            "select pid from ..., then pg_terminate_backend(pid)": lambda: _by_pid(admin, _BY_PID),
            "the same, if it is idle by then": lambda: _by_pid(admin, _IF_IDLE),
        }
        tolls = {name: _tried(observe, client, pids, admin) for name, observe in tools.items()}
    head = ("", "pids used again", "newcomers terminated", "newcomers with another pid")
    rows = [(name, f"{t.newcomers:,}", f"{t.terminated:,}", f"{t.other_pid:,}") for name, t in tolls.items()]
    ours = tolls[_OURS].terminated
    return Report(
        tables=[
            table("Pids that are used again between observation and termination", head, rows),
            figures("The reaper's outcomes", outcomes),
        ],
        counted={name: toll.terminated for name, toll in tolls.items()},
        broken=[f"{ours} newcomers were terminated by the reaper"] if ours else [],
    )


def _guarded(reaper: Reaper, outcomes: Counter[str]) -> Act:
    (reap,) = reaper.plan(policy(_APPLICATION)).reaps
    return lambda: outcomes.update([reaper.act(reap).result.value])


def _by_pid(admin: psycopg.Connection, statement: LiteralString) -> Act:
    ((pid,),) = admin.execute(_PID, (_APPLICATION,)).fetchall()
    return lambda: admin.execute(statement, (pid,))


def _tried(observe: Observe, client: str, pids: int, admin: psycopg.Connection) -> _PidToll:
    toll = _PidToll()
    session = psycopg.connect(client, autocommit=True)
    while toll.newcomers < pids:
        pid = session.info.backend_pid
        until(lambda: _is_idle(admin))
        act = observe()
        session.close()
        session = _newcomer(client, pid)
        if session.info.backend_pid != pid:
            toll.other_pid += 1
            continue
        until(lambda: _is_idle(admin))
        act()
        toll.newcomers += 1
        if not _works(session):
            toll.terminated += 1
            session.close()
            session = psycopg.connect(client, autocommit=True)
    session.close()
    return toll


def _newcomer(client: str, pid: int) -> psycopg.Connection:
    """A session that begins when this pid is free again; no other process begins here meanwhile."""
    until(lambda: not Path(f"/proc/{pid}").exists())
    LAST_PID.write_text(str(pid - 1), encoding="ascii")
    newcomer = psycopg.connect(client, autocommit=True)
    newcomer.execute("SELECT 1")
    return newcomer


def _is_idle(admin: psycopg.Connection) -> bool:
    """Return True if there is one session and it is as idle as one that is due."""
    return admin.execute(_WAITING, (_APPLICATION,)).fetchall() == [(True,)]


def _works(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
