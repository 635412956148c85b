"""One way to show rows: a table for people, JSON and YAML for programs."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reaper.telemetry.plain import plain

Row = Mapping[str, object]


class Output(StrEnum):
    """The forms in which a command shows what it found."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show(rows: Sequence[Row], *, output: Output, title: str | None = None, empty: str = "Nothing.") -> None:
    """Print rows; every row has the same keys, and the keys are the columns."""
    if output is not Output.TABLE:
        click.echo(_for_programs(rows, output))
    elif rows:
        Console().print(_table(rows, title))
    else:
        click.echo(empty)


def show_document(
    document: Row, *, rows: str, output: Output, empty: str = "Nothing.", footer: Sequence[str] = ()
) -> None:
    """Print a document: whole for programs, for people the rows that stand under one of its keys."""
    if output is not Output.TABLE:
        click.echo(_for_programs(document, output))
        return
    listed = document[rows]
    show(listed if isinstance(listed, list) else [], output=output, empty=empty)
    for number, line in enumerate(footer):
        click.echo(plain(line) if number else f"\n{plain(line)}")


def _for_programs(document: object, output: Output) -> str:
    text = json.dumps(document, indent=2, default=str)
    return text if output is Output.JSON else yaml.safe_dump(json.loads(text), sort_keys=False).rstrip()


def _table(rows: Sequence[Row], title: str | None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        table.add_column(key.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row.values()))
    return table
