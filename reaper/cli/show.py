"""One way to show rows: a table for people, JSON and YAML for programs."""

import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import click
import yaml

if TYPE_CHECKING:
    from rich.console import Console

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
        from reaper.cli.tables import drawn  # noqa: PLC0415 (a service draws none)

        console().print(drawn(rows, title))
    else:
        click.echo(empty)


def console() -> "Console":
    """Where people read; a pipe has no width, and what goes through it is not folded."""
    from reaper.cli.tables import open_console  # noqa: PLC0415

    return open_console()
