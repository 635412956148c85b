"""The benchmarks as commands: each prints its tables as they come."""

import sys
from collections.abc import Callable, Iterator, Mapping
from signal import SIGTERM, signal
from typing import Final

import click

from reaper.demo.server import DEFAULT_MAJOR

from . import backtest, cycle, fleet, lateness, memory, start, takeover, terminations
from .machine import Machine
from .scale import Scale

Benchmark = Callable[[Scale, int], Iterator[str]]

BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "cycle": cycle.run,
    "terminations": terminations.run,
    "lateness": lateness.run,
    "takeover": takeover.run,
    "fleet": fleet.run,
    "start": start.run,
    "memory": memory.run,
    "backtest": backtest.run,
}
_TERMINATED: Final = 143


def command(name: str) -> click.Command:
    """The command that runs this benchmark."""

    @click.command(name, help=f"Measure: {name}.")
    @click.option("--scale", type=click.Choice(Scale, case_sensitive=False), default=Scale.FULL.value)
    @click.option("--major", type=int, default=DEFAULT_MAJOR, show_default=True, help="Which PostgreSQL.")
    def run(scale: Scale, major: int) -> None:
        signal(SIGTERM, lambda *_: sys.exit(_TERMINATED))  # what was started is ended on the way out
        machine = Machine()
        for table in BENCHMARKS[name](scale, major):
            click.echo(f"\n{table}")
        click.echo(f"\n{machine.described(major)}")

    return run
