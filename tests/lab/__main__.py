"""`python -m tests.lab NAME`: run a campaign, the faults, a benchmark or the fuzzers."""

import click

from tests.lab.benchmarks.commands import BENCHMARKS, command
from tests.lab.campaigns.commands import main as campaigns
from tests.lab.faults.command import main as faults
from tests.lab.fuzz.command import main as fuzz


@click.group()
def main() -> None:
    """Run a campaign, the faults, a benchmark or the fuzzers."""


for _campaign in campaigns.commands.values():
    main.add_command(_campaign)
for _name in BENCHMARKS:
    main.add_command(command(_name))
main.add_command(faults, "faults")
main.add_command(fuzz, "fuzz")

if __name__ == "__main__":
    main()
