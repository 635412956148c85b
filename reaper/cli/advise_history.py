"""Advice from a history: what was seen over hours or days, with no server."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from reaper.cli.exits import Misconfigured
from reaper.cli.progress import progress
from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.watching import Watching
from reaper.record.history import HistoryFile
from reaper.record.history_folder import history_files
from reaper.record.history_format import BadHistory
from reaper.record.history_stream import HistoryStream, by_server
from reaper.telemetry.plain import plain


class Past(NamedTuple):
    """What a history comes to."""

    evidence: Evidence
    aliased: bool
    """Whether its names are aliases, so that nothing can be said to the server by them."""


def read_history(places: Sequence[Path], watching: Watching, server: str | None) -> Past:
    """Everything that was recorded of one server."""
    try:
        return _read(_files(places, server), watching)
    except BadHistory as bad:
        raise Misconfigured(str(bad)) from None
    except OSError as error:
        message = f"{error.filename}: cannot be read: {error.strerror or error}"
        raise Misconfigured(message) from None


def _files(places: Sequence[Path], server: str | None) -> Sequence[Path]:
    found = by_server([path for place in places for path in history_files(place)], _tell)
    chosen = [files for name, files in found.items() if server in {None, name}]
    if len(chosen) == 1:
        return chosen[0]
    where = ", ".join(map(str, places))
    if chosen:
        message = f"{where}: of {', '.join(found)}: say with --server which one is meant"
        raise Misconfigured(message)
    message = f"{where}: no history{f' of a server {server!r}' if server else ''} is there"
    raise Misconfigured(message)


def _read(files: Sequence[Path], watching: Watching) -> Past:
    head = HistoryFile(files[0]).head()
    size = sum(path.stat().st_size for path in files)
    with progress("reading the history", size) as passed:
        for reading in HistoryStream(files, told=_tell, passed=passed).readings():
            watching.follow(reading)
    try:
        return Past(watching.evidence(), bool(head and head.anonymous))
    except ValueError:
        message = f"{files[0].parent}: not one whole look is there yet"
        raise Misconfigured(message) from None


def _tell(what: str) -> None:
    click.echo(plain(what), err=True)
