"""What it costs to start a command: its CPU beside that of Python itself, and of psql.

All take turns. They run from bytecode that exists already, as in an installed package.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tests.lab.clients.sleepers import ROOT
from tests.lab.report import NOTHING, Scale, milliseconds, quantile, table
from tests.lab.world.reaper import policy
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.majors import tool
from tests.system.command import find
from tests.system.policies import FILE, policy_file

_ROUNDS: Final[Mapping[Scale, int]] = {Scale.FULL: 15, Scale.SMOKE: 1}
_PYTHON: Final = "python -c pass"
_PSQL: Final = "psql -c"


class _StartCommand(NamedTuple):
    """A command and the folder in which it runs."""

    words: Sequence[str]
    folder: Path


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table: CPU of each command, user and system."""
    with LabServer(major) as server, ExitStack() as stack:
        folder, bytecode = (Path(stack.enter_context(TemporaryDirectory())) for _ in range(2))
        commands = dict(_commands(folder, server.dsn_of(REAPER), major))
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in commands.values():
            _cost(command, environment)  # what is read from the disk is in memory from now on
        costs: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_ROUNDS[scale]):
            for name, command in commands.items():
                costs[name].append(_cost(command, environment))
    python, psql = (median(costs[name]) if name in costs else None for name in (_PYTHON, _PSQL))
    assert python
    rows = [
        (
            name,
            *(milliseconds(each, 0) for each in (median(taken), min(taken), quantile(taken, 0.9))),
            f"{median(taken) / python:.1f}",
            f"{median(taken) / psql:.1f}" if psql else NOTHING,
        )
        for name, taken in costs.items()
    ]
    title = f"Start: user and system CPU of {_ROUNDS[scale]} runs each, in turns; the client's alone"
    yield table(title, ("", "CPU, median", "least", "p90", "to python", "to psql"), rows)


def _commands(folder: Path, dsn: str, major: int) -> Iterator[tuple[str, _StartCommand]]:
    named, unnamed = folder / "named", folder / "unnamed"
    for each in (named, unnamed):
        each.mkdir()
    (named / FILE).write_bytes((ROOT / FILE).read_bytes())
    (unnamed / FILE).write_text(policy_file(policy("leaked", 1, role=["app"])), encoding="utf-8")
    reaper = find("reaper")
    yield _PYTHON, _StartCommand((sys.executable, "-c", "pass"), named)
    yield "reaper --help", _StartCommand((reaper, "--help"), named)
    yield "reaper check, the shipped file", _StartCommand((reaper, "check", "--offline"), named)
    yield "reaper check, a file without servers", _StartCommand((reaper, "check", "--offline"), unnamed)
    yield "reaper once", _StartCommand((reaper, "once", "--dsn", dsn, "--log-level", "error"), unnamed)
    if psql := tool("psql", major=major):
        question = "SELECT pid FROM pg_stat_activity WHERE state = 'idle'"
        yield _PSQL, _StartCommand((str(psql), "-qAtX", "-c", question, dsn), named)


def _cost(command: _StartCommand, environment: Mapping[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command.words, cwd=command.folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
