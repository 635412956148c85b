"""The commands people type."""

import resource
import sys
from contextlib import suppress
from io import TextIOWrapper

import click

from reaper.cli.exits import Exit
from reaper.cli.root import reaper
from reaper.cli.unread import ending_unread, let_go


def main() -> None:
    """Run the command line."""
    if not (sys.stdout and sys.stderr):
        # Whatever is opened next gets the free number, and is written to as if it were the output.
        print("stdout or stderr is closed: redirect it, to /dev/null if need be", file=sys.stderr)  # noqa: T201
        sys.exit(Exit.USAGE)
    with suppress(OSError, ValueError):
        # A dump of our memory would hold passwords. systemd-coredump, handed one all the same, heeds it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (sys.stdout, sys.stderr):
        # Where a terminal or a log is not of UTF-8, a name must not end the command that shows it.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with ending_unread():
            sys.exit(_ended())
    finally:
        let_go()


def _ended() -> int:
    """Run a command to its end; its exit code, whether or not somebody reads why."""
    try:
        return int(reaper.main(prog_name="reaper", standalone_mode=False) or Exit.FINE)
    except click.ClickException as error:
        with suppress(BrokenPipeError):
            error.show()
        return error.exit_code
    except click.Abort:
        with suppress(BrokenPipeError):
            click.echo("Aborted!", err=True)
        return Exit.NO
