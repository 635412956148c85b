"""Hundreds of guarded terminations against sessions that wake up at random."""

import random
from collections import Counter
from threading import Event, Thread
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.policy.verdict import Result

from .reaping import policy
from .stage import Stage

SESSIONS: Final = 8
TERMINATIONS: Final = 200
WORK: Final = "SELECT pg_sleep(0.002)"


class Sleeper(Thread):
    """A client that works a little, idles a little, and comes back whenever it was terminated."""

    def __init__(self, dsn: str, enough: Event, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._enough = enough
        self._random = random.Random(seed)  # noqa: S311 - it decides how long to idle, nothing else

    def run(self) -> None:
        while not self._enough.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    self._live(connection)
            except psycopg.OperationalError:
                continue

    def _live(self, connection: psycopg.Connection) -> None:
        while not self._enough.wait(self._random.uniform(0.001, 0.01)):
            connection.execute(WORK)


def test_hardly_a_statement_is_hit_by_hundreds_of_acts_among_sessions_that_wake_up_all_the_time(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(stage.server.log_text())
    enough = Event()
    dsn = make_conninfo(stage.app.dsn, application_name=stage.application)
    sleepers = [Sleeper(dsn, enough, seed) for seed in range(SESSIONS)]
    for sleeper in sleepers:
        sleeper.start()
    told = Counter[Result]()
    terminated = list[int]()
    try:
        while len(terminated) < TERMINATIONS:
            for reap in stage.reaper.plan(policy(stage.application)).reaps:
                outcome = stage.reaper.act(reap)
                told[outcome.result] += 1
                if outcome.result is Result.TERMINATED:
                    terminated.append(reap.session.id.pid)
    finally:
        enough.set()
        for sleeper in sleepers:
            sleeper.join()

    log = stage.server.log_text()[before:]
    interrupted = log.count(f"STATEMENT:  {WORK}")
    with capsys.disabled():
        print(f"\n{told.total()} acts: {dict(told)}, {interrupted} hit a statement")  # noqa: T201
    assert set(told) <= {Result.TERMINATED, Result.WOKE, Result.GONE}
    assert Counter(fatal_pids(log)) == Counter(terminated)
    # What is left are the microseconds between look and signal.
    assert interrupted <= len(terminated) * 0.05


def fatal_pids(log: str) -> list[int]:
    said = "FATAL:  terminating connection due to administrator command"
    return [int(line.split("[")[1].split("]")[0]) for line in log.splitlines() if said in line]
