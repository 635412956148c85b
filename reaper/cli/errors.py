"""The exit codes, and the sentences that end a command with one."""

import signal
import sys
from enum import IntEnum
from typing import IO, Any

import click

from reaper.policy.text import plain


class Exit(IntEnum):
    """What the shell is told."""

    FINE = 0
    NO = 1
    USAGE = 2
    SERVER = 3
    DEFECT = 70
    UNREAD = 128 + signal.SIGPIPE


class _Sentence(click.ClickException):
    """An error for a person; printed as it stands, so that editors can follow its file:line:column."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence, line by line: what it repeats may come from a file, a server or a client."""
        lines = map(plain, self.format_message().split("\n"))
        click.echo("\n".join(lines), file=file or sys.stderr)


class No(_Sentence):
    """The answer is no."""

    exit_code = Exit.NO


class Misconfigured(_Sentence):
    """Usage or configuration."""

    exit_code = Exit.USAGE


class ServerTrouble(_Sentence):
    """The server cannot be reached, or refuses."""

    exit_code = Exit.SERVER


class Defect(_Sentence):
    """The reaper itself is broken."""

    exit_code = Exit.DEFECT
