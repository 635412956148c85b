"""A pid that is used again between look and act: who sits there by then must live.

In a namespace of its own the kernel can be told which pid comes next, so that every newcomer gets the pid of
the session that has just left.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.policy.plan import Result
from tests.lab.benchmarks.ground import REAPER, Ground
from tests.lab.benchmarks.table import table
from tests.postgres.reaping import Reaper, policy
from tests.postgres.waiting import until

from .report import Report

_LAST_PID: Final = Path("/proc/sys/kernel/ns_last_pid")
_OURS: Final = "the guarded statement of the reaper"
_APPLICATION: Final = "sleeper"
_IDLE: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity WHERE state = 'idle' AND application_name = %s
"""
_WAITING: Final[LiteralString] = """
    SELECT state = 'idle' AND wait_event = 'ClientRead' FROM pg_stat_activity WHERE application_name = %s
"""
_BY_PID: Final[LiteralString] = "SELECT pg_terminate_backend(%s)"
_IF_IDLE: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND state = 'idle'
"""

Act = Callable[[], bool]
"""Acts upon what was seen, and says whether a signal was sent."""
Look = Callable[[], Act]
"""Looks at the one session that there is."""


def own_namespace(*command: str) -> Sequence[str]:
    """This command where pids are ours to give."""
    unshare = shutil.which("unshare") or "unshare"
    user = () if os.geteuid() == 0 else ("--user", "--map-current-user", "--keep-caps")
    return (unshare, *user, "--pid", "--fork", "--kill-child", "--mount-proc", *command)


def why_not() -> str | None:
    """Why there cannot be such a namespace here, or nothing."""
    command = own_namespace("/bin/sh", "-c", f"echo 1000 > {_LAST_PID}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else None


@dataclass(slots=True)
class Toll:
    """What one way of doing it did to newcomers."""

    newcomers: int = 0
    terminated: int = 0
    elsewhere: int = 0
    """Newcomers that got another pid, so that nothing was tried."""


def reuse(*, pids: int, major: int) -> Report:
    """So many newcomers on the pid of somebody who was about to be terminated, for each way of doing it."""
    with (
        Ground(major, autovacuum="off") as ground,
        Reaper(make_conninfo(ground.server.dsn, user=REAPER)) as reaper,
        psycopg.connect(ground.server.dsn, autocommit=True) as admin,
    ):
        way_in = make_conninfo(ground.server.dsn, user=ground.role("app"), application_name=_APPLICATION)
        results = dict[Result, int]()
        ways: Mapping[str, Look] = {
            _OURS: lambda: _guarded(reaper, results),
            "select pid from ..., then pg_terminate_backend(pid)": lambda: _by_pid(admin, _BY_PID),
            "the same, if it is idle by then": lambda: _by_pid(admin, _IF_IDLE),
        }
        tolls = {name: _tried(look, way_in, pids, admin) for name, look in ways.items()}
    head = ("", "pids used again", "newcomers terminated", "newcomers with another pid")
    rows = [(name, f"{t.newcomers:,}", f"{t.terminated:,}", f"{t.elsewhere:,}") for name, t in tolls.items()]
    told = ", ".join(f"{count:,} {result}" for result, count in results.items())
    ours = tolls[_OURS].terminated
    return Report(
        tables=[
            table("Pids that are used again between look and act", head, rows),
            f"The reaper's outcomes: {told}",
        ],
        counted={name: toll.terminated for name, toll in tolls.items()},
        broken=[f"{ours} newcomers were terminated by the reaper"] if ours else [],
    )


def _guarded(reaper: Reaper, results: dict[Result, int]) -> Act:
    (reap,) = reaper.plan(policy(_APPLICATION)).reaps

    def act() -> bool:
        outcome = reaper.act(reap)
        results[outcome.result] = results.get(outcome.result, 0) + 1
        return outcome.result in {Result.TERMINATED, Result.SIGNALLED}

    return act


def _by_pid(admin: psycopg.Connection, statement: LiteralString) -> Act:
    ((pid,),) = admin.execute(_IDLE, (_APPLICATION,)).fetchall()
    return lambda: any(sent for (sent,) in admin.execute(statement, (pid,)))


def _tried(look: Look, way_in: str, pids: int, admin: psycopg.Connection) -> Toll:
    toll = Toll()
    sitting = psycopg.connect(way_in, autocommit=True)
    while toll.newcomers < pids:
        pid = sitting.info.backend_pid
        until(lambda: _one_sits_idle(admin))
        act = look()
        sitting.close()
        sitting = _newcomer(way_in, pid)
        if sitting.info.backend_pid != pid:
            toll.elsewhere += 1
            continue
        until(lambda: _one_sits_idle(admin))
        act()
        toll.newcomers += 1
        if not _lives(sitting):
            toll.terminated += 1
            sitting.close()
            sitting = psycopg.connect(way_in, autocommit=True)
    sitting.close()
    return toll


def _newcomer(way_in: str, pid: int) -> psycopg.Connection:
    """Whoever comes once this pid is free again; nobody else begins a process here meanwhile."""
    until(lambda: not Path(f"/proc/{pid}").exists())
    _LAST_PID.write_text(str(pid - 1), encoding="ascii")
    newcomer = psycopg.connect(way_in, autocommit=True)
    newcomer.execute("SELECT 1")
    return newcomer


def _one_sits_idle(admin: psycopg.Connection) -> bool:
    """Whether there is one session, as idle as anybody who deserves it: a newcomer must be a temptation."""
    return admin.execute(_WAITING, (_APPLICATION,)).fetchall() == [(True,)]


def _lives(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
