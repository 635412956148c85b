"""Tables for people, and where they read them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reaper.telemetry.plain import plain

_WIDTH_OF_A_PIPE: Final = 240
_WHOLE: Final = frozenset({"time", "verdict", "outcome", "pid"})
"""Columns too short to be folded."""


class _Console(Console):
    """Lets a broken pipe be seen by whoever ends the command."""

    def on_broken_pipe(self) -> None:
        """Rich itself would end with 1, which is a no."""
        raise BrokenPipeError


def open_console() -> Console:
    """Where people read; a pipe has no width, and what goes through it is not folded."""
    seen = sys.stdout.isatty()
    return _Console(width=None if seen else _WIDTH_OF_A_PIPE, soft_wrap=not seen)


def drawn(rows: Sequence[Mapping[str, object]], title: str | None) -> Table:
    """A table of rows that have the same keys."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        table.add_column(key.replace("_", " "), overflow="fold", no_wrap=key in _WHOLE)
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row.values()))
    return table
