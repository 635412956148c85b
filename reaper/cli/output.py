"""How far it is, for whoever watches on a terminal; stdout is for the answer."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reaper.policy.text import plain

Row = Mapping[str, object]


class Output(StrEnum):
    """The forms in which a command shows what it found."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class _OneLineDumper(yaml.SafeDumper):
    """Writes every text on one line: a name that holds a newline must not look like two."""


def _on_one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_OneLineDumper.add_representer(str, _on_one_line)


def show(rows: Sequence[Row], *, output: Output, title: str | None = None, empty: str = "Nothing.") -> None:
    """Print rows; every row has the same keys, and the keys are the columns."""
    if output is Output.TABLE:
        print_table(rows, title=title, empty=empty)
    else:
        print_document(rows, output=output)


def print_document(document: object, *, output: Output) -> None:
    """Print JSON or YAML, for programs."""
    text = json.dumps(document, indent=2, default=str)
    if output is Output.YAML:
        text = yaml.dump(json.loads(text), Dumper=_OneLineDumper, sort_keys=False, width=math.inf).rstrip()
    click.echo(text)


def print_table(rows: Sequence[Row], *, title: str | None = None, empty: str = "Nothing.") -> None:
    """Print a table, for people; an empty one is a sentence."""
    if rows:
        console().print(drawn(rows, title))
    else:
        click.echo(empty)


def console() -> "Console":
    """Where people read; a pipe has no width, and what goes through it is not folded."""
    return open_console()


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


@contextmanager
def progress(what: str, size: float) -> Iterator[Callable[[float], None]]:
    """A bar that is told of each step, and is gone when it is over; nothing for nobody."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 (only where somebody watches)
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=size or 1)
        yield lambda step: bar.advance(task, step)


def report_problem(sentence: str) -> None:
    """Print a sentence about the input to stderr, and go on."""
    click.echo(plain(sentence), err=True)
