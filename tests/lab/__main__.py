"""`python -m tests.lab NAME`: run a campaign, the faults, a benchmark or the fuzzers."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from signal import SIGTERM, signal
from typing import Any, Final

import click

from reaper.demo.server import DEFAULT_MAJOR
from tests.lab.benchmarks import backtest, cycle, fleet, lateness, memory, start, takeover, terminations
from tests.lab.campaigns.audit_file import disk as run_disk
from tests.lab.campaigns.audit_file import rotation as run_rotation
from tests.lab.campaigns.crash import crash as run_crash
from tests.lab.campaigns.dry_run import dry_run as run_dry_run
from tests.lab.campaigns.pid_reuse import pid_reuse as run_pid_reuse
from tests.lab.campaigns.race import race as run_race
from tests.lab.campaigns.replay import replay as run_replay
from tests.lab.faults.command import faults
from tests.lab.fuzz.command import fuzz
from tests.lab.report import Machine, Report, Scale
from tests.lab.world.isolation import in_own_pids

Benchmark = Callable[[Scale, int], Iterator[str]]

_BENCHMARKS: Final[Mapping[str, tuple[Benchmark, str]]] = {
    "cycle": (cycle.run, "CPU of a whole cycle beside the bare statement."),
    "terminations": (terminations.run, "Terminations until gone, beside one unguarded statement."),
    "lateness": (lateness.run, "How late idle sessions end, beside other ways to end them."),
    "takeover": (takeover.run, "From the loss of a leader to the first cycle of the next one."),
    "fleet": (fleet.run, "Many servers in one process, and in several."),
    "start": (start.run, "CPU of starting a command."),
    "memory": (memory.run, "Memory with everything on, among new names."),
    "backtest": (backtest.run, "Sessions a second in a backtest, and its memory."),
}
_TERMINATED: Final = 143

seed_option = click.option("--seed", type=int, default=20261120, show_default=True)
major_option = click.option(
    "--major", type=int, default=DEFAULT_MAJOR, show_default=True, help="Which PostgreSQL."
)


@click.group()
def main() -> None:
    """Run a campaign, the faults, a benchmark or the fuzzers."""
    signal(SIGTERM, lambda *_: sys.exit(_TERMINATED))  # what was started is ended on the way out


def _report(run: Callable[..., Report], **options: Any) -> None:  # noqa: ANN401 (what click parsed)
    machine = Machine()
    report = run(**options)
    click.echo(f"\n{report.text}\n\n{machine.described(options['major'])}")
    sys.exit(bool(report.broken))


@main.command()
@click.option("--acts", type=int, default=100_000, show_default=True, help="Terminations by the reaper.")
@seed_option
@major_option
def race(**options: int) -> None:
    """Terminate sessions that wake up at random."""
    _report(run_race, **options)


@main.command()
@click.option("--crashes", type=int, default=1_000, show_default=True)
@seed_option
@major_option
@click.option("--keep", type=click.Path(path_type=Path, exists=True), help="An empty folder for audit logs.")
def crash(**options: Any) -> None:  # noqa: ANN401 (what click parsed)
    """Kill the reaper at random moments."""
    _report(run_crash, **options)


@main.command()
@click.option("--rotations", type=int, default=300, show_default=True)
@seed_option
@major_option
def rotation(**options: int) -> None:
    """Rename the audit log while the reaper works."""
    _report(run_rotation, **options)


@main.command()
@click.option("--fillings", type=int, default=50, show_default=True)
@seed_option
@major_option
def disk(**options: int) -> None:
    """Fill the disk of the audit log while the reaper works."""
    _report(run_disk, **options)


@main.command("dry-run")
@click.option("--minutes", type=float, default=5.0, show_default=True)
@click.option("--several", type=int, default=20, show_default=True, help="Clients of each kind.")
@seed_option
@major_option
def dry_run(*, minutes: float, **options: int) -> None:
    """Compare a dry run with the accounts of the clients."""
    _report(run_dry_run, seconds=60 * minutes, **options)


@main.command()
@click.option("--acts", type=int, default=2_000, show_default=True)
@click.option("--every", default="5s", show_default=True, help="Between two snapshots of the history.")
@seed_option
@major_option
def replay(**options: Any) -> None:  # noqa: ANN401 (what click parsed)
    """Compare a live dry run with the backtest of its history."""
    _report(run_replay, **options)


@main.command("pid-reuse")
@click.option("--pids", type=int, default=2_000, show_default=True)
@major_option
@click.option("--inside", is_flag=True, hidden=True)
def pid_reuse(*, inside: bool, **options: int) -> None:
    """Give the pid of an observed session to a new one."""
    if not inside:
        again = in_own_pids(sys.executable, "-m", "tests.lab", *sys.argv[1:], "--inside")
        sys.exit(subprocess.run(again, check=False).returncode)
    _report(run_pid_reuse, **options)


def _benchmark(name: str) -> click.Command:
    run, what = _BENCHMARKS[name]

    @click.command(name, help=what)
    @click.option("--scale", type=click.Choice(Scale, case_sensitive=False), default=Scale.FULL.value)
    @major_option
    def measure(scale: Scale, major: int) -> None:
        machine = Machine()
        for table in run(scale, major):
            click.echo(f"\n{table}")
        click.echo(f"\n{machine.described(major)}")

    return measure


for _name in _BENCHMARKS:
    main.add_command(_benchmark(_name))
main.add_command(faults)
main.add_command(fuzz)

if __name__ == "__main__":
    main()
