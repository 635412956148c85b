"""The events of a record, for everything that asks about them; what is none is told on standard error."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from reaper.cli.exits import Misconfigured
from reaper.record.events import Event
from reaper.record.reader import Torn, read_events
from reaper.telemetry.plain import plain

_MOST_TORN: Final = 10
"""So many unreadable lines of one file are named; of the rest only the number is told."""


def events_of(files: Iterable[str]) -> Iterator[Event]:
    """Every event of every file; what is none is told on standard error."""
    torn = Counter[str]()
    for file in files:
        try:
            for event in read_events(sys.stdin.buffer if file == "-" else Path(file)):
                if isinstance(event, Event):
                    yield event
                else:
                    torn[event.file] += 1
                    _tell(event, torn[event.file])
        except OSError as error:
            message = f"The record {plain(file)} cannot be read: {error.strerror or error}."
            raise Misconfigured(message) from error
    for name, count in torn.items():
        if count > _MOST_TORN:
            click.echo(f"{plain(name)}: {count - _MOST_TORN} more lines that are no events", err=True)


def _tell(torn: Torn, number: int) -> None:
    if number <= _MOST_TORN:
        click.echo(plain(torn), err=True)
