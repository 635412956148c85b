"""Tables for people, JSON and YAML for programs, and progress bars on a terminal."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import click
import yaml
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from reaper.policy.text import printable

Row = Mapping[str, object]
Cells = Sequence[object]

_PIPE_WIDTH: Final = 240
_NEVER_FOLDED: Final = frozenset({"time", "decision", "outcome", "pid"})


class Output(StrEnum):
    """Formats in which a command can print its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class _OneLineDumper(yaml.SafeDumper):
    """Writes every text on one line: a name that contains a newline must not look like two names."""


def _on_one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_OneLineDumper.add_representer(str, _on_one_line)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error: rich itself would exit with 1, which means "a problem was found"."""
        raise BrokenPipeError


def show(rows: Sequence[Row], *, output: Output, title: str | None = None, empty: str = "Nothing.") -> None:
    """Print rows; every row has the same keys, and the keys are the columns."""
    if output is Output.TABLE:
        print_table(rows, title=title, empty=empty)
    else:
        print_document(rows, output=output)


def print_document(document: object, *, output: Output) -> None:
    """Print JSON or YAML."""
    text = json.dumps(document, indent=2, default=str)
    if output is Output.YAML:
        text = yaml.dump(json.loads(text), Dumper=_OneLineDumper, sort_keys=False, width=math.inf).rstrip()
    click.echo(text)


def print_table(rows: Sequence[Row], *, title: str | None = None, empty: str = "Nothing.") -> None:
    """Print a table, or the sentence `empty` if there are no rows."""
    if rows:
        console().print(table_of(rows, title))
    else:
        click.echo(empty)


def print_groups(
    columns: Mapping[str, JustifyMethod], groups: Iterable[tuple[Cells, Iterable[Cells]]]
) -> None:
    """Print a table of groups: a bold row for each, and below it its rows, which are indented."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns.items():
        table.add_column(name, justify=justify, overflow="fold", no_wrap=justify == "right")
    for heading, rows in groups:
        table.add_row(*_texts(heading), style="bold")
        for first, *others in rows:
            table.add_row(*_texts((f"  {first}", *others)))
    console().print(table)


def _texts(cells: Cells) -> Iterator[Text]:
    return (Text(printable(cell)) for cell in cells)


def console() -> Console:
    """A console on stdout. A pipe has no width, and output through a pipe is not folded."""
    terminal = sys.stdout.isatty()
    return _Console(width=None if terminal else _PIPE_WIDTH, soft_wrap=not terminal)


def table_of(rows: Sequence[Row], title: str | None) -> Table:
    """A table of rows that have the same keys."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        table.add_column(key.replace("_", " "), overflow="fold", no_wrap=key in _NEVER_FOLDED)
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row.values()))
    return table


@contextmanager
def progress(what: str, size: float) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr that is removed at the end; nothing if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=size or 1)
        yield lambda step: bar.advance(task, step)


def report_problem(sentence: str) -> None:
    """Print a sentence about the input to stderr, and go on."""
    click.echo(printable(sentence), err=True)
