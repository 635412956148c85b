"""The commands people type."""

import sys

from reaper.cli.exits import Exit
from reaper.cli.root import reaper


def main() -> None:
    """Run the command line."""
    if not (sys.stdout and sys.stderr):
        # Whatever is opened next gets the free number, and is written to as if it were the output.
        print("stdout or stderr is closed: redirect it, to /dev/null if need be", file=sys.stderr)  # noqa: T201
        sys.exit(Exit.USAGE)
    reaper(prog_name="reaper")
