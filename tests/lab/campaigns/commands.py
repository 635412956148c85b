"""`python -m tests.lab NAME`: run one campaign, print what it counted, end with 1 when it is bad."""

import subprocess
import sys
from pathlib import Path
from signal import SIGTERM, signal
from typing import Final

import click

from reaper.demo.server import DEFAULT_MAJOR
from tests.lab.benchmarks.machine import Machine

from .backtest import backtest as run_backtest
from .crash import crash as run_crash
from .disk import disk as run_disk
from .race import race as run_race
from .rehearsal import rehearsal as run_rehearsal
from .report import Report
from .reuse import own_namespace
from .reuse import reuse as run_reuse
from .rotation import rotation as run_rotation

_TERMINATED: Final = 143
_SEED: Final = 20261120

seed_option = click.option("--seed", type=int, default=_SEED, show_default=True)
major_option = click.option(
    "--major", type=int, default=DEFAULT_MAJOR, show_default=True, help="Which PostgreSQL."
)


@click.group()
def main() -> None:
    """Try the promises many thousand times."""
    signal(SIGTERM, lambda *_: sys.exit(_TERMINATED))  # what was started is ended on the way out


@main.command()
@click.option("--acts", type=int, default=100_000, show_default=True)
@seed_option
@major_option
def race(acts: int, seed: int, major: int) -> None:
    """Terminate sessions that wake up at random."""
    machine = Machine()
    _tell(run_race(acts=acts, seed=seed, major=major), machine, major)


@main.command()
@click.option("--crashes", type=int, default=1_000, show_default=True)
@seed_option
@major_option
@click.option("--keep", type=click.Path(path_type=Path, exists=True), help="An empty folder for the records.")
def crash(crashes: int, seed: int, major: int, keep: Path | None) -> None:
    """End the reaper by SIGKILL at random instants, again and again."""
    machine = Machine()
    _tell(run_crash(crashes=crashes, seed=seed, major=major, keep=keep), machine, major)


@main.command()
@click.option("--rotations", type=int, default=300, show_default=True)
@seed_option
@major_option
def rotation(rotations: int, seed: int, major: int) -> None:
    """Move the record aside while the reaper works."""
    machine = Machine()
    _tell(run_rotation(rotations=rotations, seed=seed, major=major), machine, major)


@main.command()
@click.option("--fillings", type=int, default=50, show_default=True)
@seed_option
@major_option
def disk(fillings: int, seed: int, major: int) -> None:
    """Fill the disk under the record while the reaper works."""
    machine = Machine()
    _tell(run_disk(fillings=fillings, seed=seed, major=major), machine, major)


@main.command()
@click.option("--minutes", type=float, default=5.0, show_default=True)
@click.option("--several", type=int, default=20, show_default=True, help="Clients of each kind.")
@seed_option
@major_option
def rehearsal(minutes: float, several: int, seed: int, major: int) -> None:
    """Rehearse among clients that keep their own account, and compare."""
    machine = Machine()
    report = run_rehearsal(seconds=60 * minutes, several=several, seed=seed, major=major)
    _tell(report, machine, major)


@main.command()
@click.option("--acts", type=int, default=2_000, show_default=True)
@click.option("--every", default="5s", show_default=True, help="How often the history looks.")
@seed_option
@major_option
def replay(acts: int, every: str, seed: int, major: int) -> None:
    """Rehearse live, and compare with a backtest of the history."""
    machine = Machine()
    _tell(run_backtest(acts=acts, seed=seed, major=major, every=every), machine, major)


@main.command()
@click.option("--pids", type=int, default=2_000, show_default=True)
@major_option
@click.option("--inside", is_flag=True, hidden=True)
def reuse(pids: int, major: int, *, inside: bool) -> None:
    """Give the pid of whoever has just left to a newcomer, in a pid namespace of its own."""
    if not inside:
        again = (sys.executable, "-m", "tests.lab", *sys.argv[1:], "--inside")
        sys.exit(subprocess.run(own_namespace(*again), check=False).returncode)
    machine = Machine()
    _tell(run_reuse(pids=pids, major=major), machine, major)


def _tell(report: Report, machine: Machine, major: int) -> None:
    click.echo(f"\n{report.text}\n\n{machine.described(major)}")
    sys.exit(bool(report.broken))
