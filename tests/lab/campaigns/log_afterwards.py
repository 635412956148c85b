"""The other order, for comparison: terminate first, and log afterwards."""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Final, LiteralString

import psycopg

from tests.lab.clients.sleepers import ROOT
from tests.lab.world.log import LineCounter
from tests.postgres.waiting import until

_IDLE: Final[LiteralString] = """
    SELECT pid, application_name FROM pg_stat_activity
     WHERE state = 'idle' AND now() - state_change > interval '20 ms' AND application_name LIKE %s
"""
_PATIENCE: Final = 120.0
_POLL: Final = 0.0005
_MAX_LINES: Final = 12
_LATER: Final = 0.008


class LogAfterwards:
    """Runs of a tool that works in this order, each ended by SIGKILL while it works."""

    def __init__(self, dsn: str, name: str, log: Path, seed: int) -> None:
        self.name = name
        self.log = log
        self.kills = 0
        self._dsn = dsn
        self._dice = Random(f"{seed} {name}")  # noqa: S311 (the same choices in every run)

    def run(self, kills: int) -> None:
        """Run it this many times."""
        module = "tests.lab.campaigns.log_afterwards"
        command = [sys.executable, "-m", module, self._dsn, f"{self.name}.%", str(self.log)]
        for _ in range(kills):
            with subprocess.Popen(command, cwd=ROOT) as process:
                counter = LineCounter(self.log, b"", ending=b"")
                goal = counter.count() + self._dice.randrange(1, _MAX_LINES)
                until(lambda: counter.count() >= goal, within=_PATIENCE, every=_POLL)  # noqa: B023
                time.sleep(self._dice.uniform(0, _LATER))
                process.kill()
            self.kills += 1

    @property
    def logged(self) -> set[str]:
        """The applications in its log."""
        return set(self.log.read_text(encoding="ascii").split())


def _work(dsn: str, like: str, log: str) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    with psycopg.connect(dsn, autocommit=True) as connection:
        while True:
            for pid, name in connection.execute(_IDLE, (like,)).fetchall():
                if connection.execute("SELECT pg_terminate_backend(%s)", (pid,)).fetchone() == (True,):
                    os.write(fd, f"{name}\n".encode())
                    os.fdatasync(fd)


if __name__ == "__main__":
    _work(*sys.argv[1:])
