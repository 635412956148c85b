"""Exit codes, and the errors that end a command with one."""

import signal
import sys
from enum import IntEnum
from typing import IO, Any

import click

from reaper.policy.text import printable


class Exit(IntEnum):
    """Exit codes of every command."""

    FINE = 0
    PROBLEM = 1
    USAGE = 2
    SERVER = 3
    DEFECT = 70
    BROKEN_PIPE = 128 + signal.SIGPIPE


class CommandError(click.ClickException):
    """An error for a person, printed unchanged so that editors can follow its file:line:column."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message, control characters escaped: parts of it come from servers and clients."""
        lines = map(printable, self.format_message().split("\n"))
        click.echo("\n".join(lines), file=file or sys.stderr)


class ProblemFound(CommandError):
    """The command worked and found a problem."""

    exit_code = Exit.PROBLEM


class Misconfigured(CommandError):
    """An option, the policy file or a file of the service is wrong."""

    exit_code = Exit.USAGE


class ServerTrouble(CommandError):
    """The server cannot be reached or refuses."""

    exit_code = Exit.SERVER


class Defect(CommandError):
    """A defect of the reaper itself."""

    exit_code = Exit.DEFECT
