"""`python -m tests.lab NAME`: run a campaign, the faults, a benchmark or the fuzzers."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from signal import SIGTERM, signal
from typing import Any, Final

import click

from reaper.demo.server import DEFAULT_MAJOR
from tests.lab.benchmarks import backtest, cycle, fleet, lateness, memory, start, takeover, terminations
from tests.lab.campaigns.audit_file import disk, rotation
from tests.lab.campaigns.crash import crash
from tests.lab.campaigns.dry_run import dry_run
from tests.lab.campaigns.pid_reuse import pid_reuse
from tests.lab.campaigns.race import race
from tests.lab.campaigns.replay import replay
from tests.lab.faults.command import faults
from tests.lab.fuzz.command import fuzz
from tests.lab.report import Machine, Report, Scale
from tests.lab.world.isolation import in_own_pids

Benchmark = Callable[[Scale, int], Iterator[str]]
Campaign = Callable[..., Report]

_SEED: Final = 20261120
_CAMPAIGNS: Final[Mapping[str, tuple[Campaign, str, Mapping[str, Any]]]] = {
    "race": (race, "Terminate sessions that wake up at random.", {"acts": 100_000, "seed": _SEED}),
    "crash": (crash, "Kill the reaper at random moments.", {"crashes": 1_000, "seed": _SEED, "keep": ""}),
    "rotation": (rotation, "Rename the audit log under load.", {"rotations": 300, "seed": _SEED}),
    "disk": (disk, "Fill the disk of the audit log under load.", {"fillings": 50, "seed": _SEED}),
    "dry-run": (
        dry_run,
        "Compare a dry run with the accounts of the clients.",
        {"minutes": 5.0, "several": 20, "seed": _SEED},
    ),
    "replay": (
        replay,
        "Compare a live dry run with the backtest of its history.",
        {"acts": 2_000, "every": "5s", "seed": _SEED},
    ),
    "pid-reuse": (pid_reuse, "Give the pid of an observed session to a new one.", {"pids": 2_000}),
}
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

major_option = click.option("--major", default=DEFAULT_MAJOR, show_default=True, help="Which PostgreSQL.")


@click.group()
def main() -> None:
    """Run a campaign, the faults, a benchmark or the fuzzers."""
    signal(SIGTERM, lambda *_: sys.exit(_TERMINATED))  # what was started is ended on the way out


def _campaign(name: str) -> click.Command:
    run, what, defaults = _CAMPAIGNS[name]

    @click.command(name, help=what)
    @major_option
    @click.option("--inside", is_flag=True, hidden=True)
    def command(*, inside: bool, **options: Any) -> None:  # noqa: ANN401 (what click parsed)
        if run is pid_reuse and not inside:
            again = in_own_pids(sys.executable, "-m", "tests.lab", *sys.argv[1:], "--inside")
            sys.exit(subprocess.run(again, check=False).returncode)
        machine = Machine()
        report = run(**options)
        click.echo(f"\n{report.text}\n\n{machine.described(options['major'])}")
        sys.exit(bool(report.broken))

    for option, default in defaults.items():
        command.params.append(click.Option([f"--{option}"], default=default, show_default=True))
    return command


def _benchmark(name: str) -> click.Command:
    run, what = _BENCHMARKS[name]

    @click.command(name, help=what)
    @click.option("--scale", type=click.Choice(Scale, case_sensitive=False), default=Scale.FULL.value)
    @major_option
    def command(scale: Scale, major: int) -> None:
        machine = Machine()
        for table in run(scale, major):
            click.echo(f"\n{table}")
        click.echo(f"\n{machine.described(major)}")

    return command


for _command in (*map(_campaign, _CAMPAIGNS), *map(_benchmark, _BENCHMARKS), faults, fuzz):
    main.add_command(_command)

if __name__ == "__main__":
    main()
