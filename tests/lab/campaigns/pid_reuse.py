"""A pid that is used again between observation and termination: the new session must not be touched.

In a pid namespace of its own the kernel accepts a choice of the next pid, so every newcomer gets the pid of
the session that has just ended.
"""

from collections import Counter
from collections.abc import Callable, Mapping
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

Observe = Callable[[], Callable[[], object]]
"""Observes the one session that there is; returns a function that terminates it."""


def pid_reuse(*, major: int, pids: int = 2_000) -> Report:
    """Give the pid of an observed session to a new one, for the guard and for termination by pid."""
    with (
        LabServer(major, autovacuum="off") as server,
        Reaper(server.dsn_of(REAPER)) as reaper,
        psycopg.connect(server.dsn, autocommit=True) as admin,
    ):
        client = make_conninfo(server.dsn_of("app"), application_name=_APPLICATION)
        outcomes = Counter[str]()
        tools: Mapping[str, Observe] = {
            _OURS: lambda: _guarded(reaper, outcomes),
            "select pid from ..., then pg_terminate_backend(pid)": lambda: _by_pid(admin),
        }
        counts = {name: _tried(observe, client, pids, admin) for name, observe in tools.items()}
    names = ("pids used again", "newcomers terminated", "newcomers with another pid")
    rows = [(tool, *(f"{count[name]:,}" for name in names)) for tool, count in counts.items()]
    ours = counts[_OURS][names[1]]
    return Report(
        tables=[
            table("Pids that are used again between observation and termination", ("", *names), rows),
            figures("The reaper's outcomes", outcomes),
        ],
        counted=counts[_OURS],
        broken=[f"{ours} newcomers were terminated by the reaper"] if ours else [],
    )


def _guarded(reaper: Reaper, outcomes: Counter[str]) -> Callable[[], object]:
    (reap,) = reaper.plan(policy(_APPLICATION)).reaps
    return lambda: outcomes.update([reaper.act(reap).result.value])


def _by_pid(admin: psycopg.Connection) -> Callable[[], object]:
    ((pid,),) = admin.execute(_PID, (_APPLICATION,)).fetchall()
    return lambda: admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


def _tried(observe: Observe, client: str, pids: int, admin: psycopg.Connection) -> Counter[str]:
    """Count what one tool did to newcomers."""
    counts = Counter[str]()
    session = psycopg.connect(client, autocommit=True)
    while counts["pids used again"] < pids:
        pid = session.info.backend_pid
        until(lambda: _is_idle(admin))
        terminate = observe()
        session.close()
        session = _newcomer(client, pid)
        if session.info.backend_pid != pid:
            counts["newcomers with another pid"] += 1
            continue
        until(lambda: _is_idle(admin))
        terminate()
        counts["pids used again"] += 1
        if not _works(session):
            counts["newcomers terminated"] += 1
            session.close()
            session = psycopg.connect(client, autocommit=True)
    session.close()
    return counts


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
