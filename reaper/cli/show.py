"""One way to show rows: a table for people, JSON and YAML for programs."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, object]


class Output(StrEnum):
    """The forms in which a command shows what it found."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show(rows: Sequence[Row], *, output: Output, title: str | None = None, empty: str = "Nothing.") -> None:
    """Print rows; every row has the same keys, and the keys are the columns."""
    if output is Output.JSON:
        click.echo(json.dumps(rows, indent=2, default=str))
    elif output is Output.YAML:
        click.echo(yaml.safe_dump(json.loads(json.dumps(rows, default=str)), sort_keys=False), nl=False)
    elif rows:
        Console().print(_table(rows, title))
    else:
        click.echo(empty)


def _table(rows: Sequence[Row], title: str | None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        table.add_column(key.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row.values()))
    return table


def plain(value: object) -> str:
    """A value as one harmless line: what a client wrote cannot move the cursor or start a new line."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
