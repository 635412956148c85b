"""The other order, for comparison: terminate, and write it down afterwards."""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Final, LiteralString

import psycopg

from tests.postgres.waiting import until

from .crowds import ROOT
from .tail import Tail

_IDLE: Final[LiteralString] = """
    SELECT pid, application_name
      FROM pg_stat_activity
     WHERE state = 'idle'
       AND now() - state_change > interval '20 ms'
       AND application_name LIKE %s
"""
_BY_PID: Final[LiteralString] = "SELECT pg_terminate_backend(%s)"
_PATIENCE: Final = 120.0
_SPIN: Final = 0.0005
_MOST_LINES: Final = 12
_LATER: Final = 0.008


class LogAfter:
    """Lives of a tool that works in this order, each ended by SIGKILL while it is at it."""

    def __init__(self, dsn: str, name: str, log: Path, seed: int) -> None:
        self.name = name
        self.log = log
        self.crashes = 0
        self._dsn = dsn
        self._dice = Random(f"{seed} {name}")  # noqa: S311 (the same choices in every run)

    def run(self, crashes: int) -> None:
        """So many lives."""
        for _ in range(crashes):
            command = [
                sys.executable,
                "-m",
                "tests.lab.campaigns.log_after",
                self._dsn,
                f"{self.name}.%",
                str(self.log),
            ]
            with subprocess.Popen(command, cwd=ROOT) as life:
                self._awaits(self._dice.randrange(1, _MOST_LINES))
                time.sleep(self._dice.uniform(0, _LATER))
                life.kill()
            self.crashes += 1

    def _awaits(self, lines: int) -> None:
        tail = Tail(self.log, b"", ending=b"")
        goal = tail.count() + lines
        until(lambda: tail.count() >= goal, within=_PATIENCE, every=_SPIN)

    @property
    def logged(self) -> set[str]:
        """Whom its log knows of."""
        return set(self.log.read_text(encoding="ascii").split())


def _work(dsn: str, like: str, log: str) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    with psycopg.connect(dsn, autocommit=True) as connection:
        while True:
            for pid, name in connection.execute(_IDLE, (like,)).fetchall():
                if connection.execute(_BY_PID, (pid,)).fetchone() == (True,):
                    os.write(fd, f"{name}\n".encode())
                    os.fdatasync(fd)


if __name__ == "__main__":
    _work(*sys.argv[1:])
