"""A pid that is used again between observation and termination: the new session must not be touched.

In a pid namespace of its own the kernel accepts a choice of the next pid, so every newcomer gets the pid of
the session that has just ended.
"""

from collections import Counter
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from tests.lab.report import Report, figures
from tests.lab.world.isolation import LAST_PID
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.reaping import Reaper, policy
from tests.postgres.waiting import until

_APPLICATION: Final = "sleeper"
_WAITING: Final[LiteralString] = """
    SELECT state = 'idle' AND wait_event = 'ClientRead' FROM pg_stat_activity WHERE application_name = %s
"""
_REUSED: Final = "pids used again"
_TERMINATED: Final = "newcomers terminated"


def pid_reuse(*, major: int, pids: int = 2_000) -> Report:
    """Give the pid of an observed session to a new one, and let the reaper terminate what it observed."""
    counts, outcomes = Counter({_REUSED: 0, _TERMINATED: 0}), Counter[str]()
    with (
        LabServer(major, autovacuum="off") as server,
        Reaper(server.dsn_of(REAPER)) as reaper,
        psycopg.connect(server.dsn, autocommit=True) as admin,
    ):
        client = make_conninfo(server.dsn_of("app"), application_name=_APPLICATION)
        session = psycopg.connect(client, autocommit=True)
        while counts[_REUSED] < pids:
            pid = session.info.backend_pid
            until(lambda: _is_idle(admin))
            (candidate,) = reaper.plan(policy(_APPLICATION)).candidates
            session.close()
            session = _newcomer(client, pid)
            if session.info.backend_pid != pid:
                counts["newcomers with another pid"] += 1
                continue
            until(lambda: _is_idle(admin))
            outcomes[reaper.act(candidate).result.value] += 1
            counts[_REUSED] += 1
            if not _works(session):
                counts[_TERMINATED] += 1
                session = psycopg.connect(client, autocommit=True)
        session.close()
    title = "Pids that are used again between observation and termination"
    return Report(
        tables=[figures(title, counts), figures("The reaper's outcomes", outcomes)],
        counted=counts,
        broken=[f"{counts[_TERMINATED]} newcomers were terminated"] if counts[_TERMINATED] else [],
    )


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
