"""An output that nobody reads any more, as behind `| head`: it ends the command, which says nothing more."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reaper.cli.exits import Exit


@contextmanager
def ending_unread() -> Iterator[None]:
    """End as a program does that the broken pipe's signal has ended; that signal could come amid an act."""
    try:
        yield
    except BrokenPipeError:
        sys.exit(Exit.UNREAD)


def let_go() -> None:
    """Forget what nobody will read, or has no room: the interpreter would try once more, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
