"""The exit codes, and the errors that carry them."""

from enum import IntEnum

import click


class Exit(IntEnum):
    """What the shell is told."""

    FINE = 0
    NO = 1
    USAGE = 2
    SERVER = 3


class Failure(click.ClickException):
    """A sentence for a person, and an exit code for the shell."""

    def __init__(self, message: str, *, code: Exit) -> None:
        super().__init__(message)
        self.exit_code = code
