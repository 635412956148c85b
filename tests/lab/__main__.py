"""`python -m tests.lab NAME`: run a campaign, the faults, a benchmark or the fuzzers."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from signal import SIGTERM, signal
from typing import Any, Final

import click

from reaper.demo.server import DEFAULT_MAJOR
from tests.lab.benchmarks.commands import backtest, start
from tests.lab.benchmarks.cycle import cycle
from tests.lab.benchmarks.fleet import fleet
from tests.lab.benchmarks.lateness import lateness
from tests.lab.benchmarks.memory import memory
from tests.lab.benchmarks.terminations import terminations
from tests.lab.campaigns.crash import crash
from tests.lab.campaigns.dry_run import dry_run, replay
from tests.lab.campaigns.pid_reuse import pid_reuse
from tests.lab.campaigns.race import race
from tests.lab.faults.command import faults
from tests.lab.fuzz.command import fuzz
from tests.lab.pictures import pictures
from tests.lab.report import Machine, Report
from tests.lab.world.isolation import in_own_pids

Experiment = Callable[..., Report | Iterator[str]]

_EXPERIMENTS: Final[Mapping[str, Experiment]] = {
    "race": race,
    "crash": crash,
    "dry-run": dry_run,
    "replay": replay,
    "pid-reuse": pid_reuse,
    "cycle": cycle,
    "terminations": terminations,
    "lateness": lateness,
    "fleet": fleet,
    "start": start,
    "memory": memory,
    "backtest": backtest,
    "pictures": pictures,
}
_TERMINATED: Final = 143


@click.group()
def main() -> None:
    """Run a campaign, the faults, a benchmark or the fuzzers."""
    signal(SIGTERM, lambda *_: sys.exit(_TERMINATED))  # processes that were started are ended on the way out


def _command(name: str, experiment: Experiment) -> click.Command:
    """A command with the keyword arguments of the experiment as options."""

    @click.command(name, help=inspect.getdoc(experiment))
    @click.option("--major", default=DEFAULT_MAJOR, show_default=True, help="The version of PostgreSQL.")
    @click.option("--inside", is_flag=True, hidden=True)
    def command(*, inside: bool, major: int, **options: Any) -> None:  # noqa: ANN401 (what click parsed)
        if experiment is pid_reuse and not inside:
            again = in_own_pids(sys.executable, "-m", "tests.lab", *sys.argv[1:], "--inside")
            sys.exit(subprocess.run(again, check=False).returncode)
        machine = Machine()
        result = experiment(major=major, **options)
        for text in [result.text] if isinstance(result, Report) else result:
            click.echo(f"\n{text}")
        click.echo(f"\n{machine.described(major)}")
        sys.exit(isinstance(result, Report) and bool(result.broken))

    for option in inspect.signature(experiment).parameters.values():
        if option.default is not inspect.Parameter.empty:
            several = isinstance(option.default, tuple)
            words = [f"--{option.name.replace('_', '-')}"]
            command.params.append(
                click.Option(words, default=option.default, show_default=True, multiple=several)
            )
    return command


for _name, _experiment in _EXPERIMENTS.items():
    main.add_command(_command(_name, _experiment))
for _other in (faults, fuzz):
    main.add_command(_other)

if __name__ == "__main__":
    main()
