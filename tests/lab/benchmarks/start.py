"""What it costs to start a command: its CPU beside that of Python itself, and of psql.

All of them take turns. They run from bytecode that is there already, as an installed package has it.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from psycopg.conninfo import make_conninfo

from tests.lab.report import Scale
from tests.postgres.majors import tool
from tests.postgres.sandbox import Role
from tests.system.command import find
from tests.system.policies import FILE, leaked, policy_file

from .ground import REAPER, Ground
from .table import NOTHING, figure, quantile, table

_ROUNDS: Final[Mapping[Scale, int]] = {Scale.FULL: 15, Scale.QUICK: 5, Scale.SMOKE: 1}
_PYTHON: Final = "python -c pass"
_PSQL: Final = "psql -c"
_SHIPPED: Final = Path(__file__).parents[3] / "policies.yaml"


class _Command(NamedTuple):
    """What is typed, and in which folder."""

    words: Sequence[str]
    folder: Path


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table: CPU of each command, its children's and its own, user and system."""
    with Ground(major) as ground, ExitStack() as stack:
        named = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        unnamed = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bytecode = stack.enter_context(tempfile.TemporaryDirectory())
        (named / FILE).write_bytes(_SHIPPED.read_bytes())
        (unnamed / FILE).write_text(policy_file(leaked(Role("app", ""))), encoding="utf-8")
        dsn = make_conninfo(ground.server.dsn, user=REAPER)
        commands = dict(_commands(named, unnamed, dsn, major))
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in commands.values():
            _cost(command, environment)  # whatever is read from the disk is in memory from now on
        costs: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_ROUNDS[scale]):
            for name, command in commands.items():
                costs[name].append(_cost(command, environment))
    yield _shown(costs)


def _commands(named: Path, unnamed: Path, dsn: str, major: int) -> Iterator[tuple[str, _Command]]:
    reaper = find("reaper")
    yield _PYTHON, _Command((sys.executable, "-c", "pass"), named)
    yield "reaper --help", _Command((reaper, "--help"), named)
    yield "reaper check, the shipped file", _Command((reaper, "check", "--offline"), named)
    yield "reaper check, a file without servers", _Command((reaper, "check", "--offline"), unnamed)
    yield "reaper once", _Command((reaper, "once", "--dsn", dsn, "--log-level", "error"), unnamed)
    psql = tool("psql", major=major)
    if psql:
        question = "SELECT pid FROM pg_stat_activity WHERE state = 'idle'"
        yield _PSQL, _Command((str(psql), "-qAtX", "-c", question, dsn), named)


def _cost(command: _Command, environment: Mapping[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command.words, cwd=command.folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _shown(costs: Mapping[str, Sequence[float]]) -> str:
    python = median(costs[_PYTHON])
    psql = median(costs[_PSQL]) if _PSQL in costs else None
    rows = [
        (
            name,
            figure(1000 * median(each), "ms", 0),
            figure(1000 * min(each), "ms", 0),
            figure(1000 * quantile(each, 0.9), "ms", 0),
            f"{median(each) / python:.1f}",
            f"{median(each) / psql:.1f}" if psql else NOTHING,
        )
        for name, each in costs.items()
    ]
    rounds = len(costs[_PYTHON])
    head = ("", "CPU, median", "least", "p90", "to python", "to psql")
    return table(
        f"Start: user and system CPU of {rounds} runs each, in turns; the client's alone", head, rows
    )
