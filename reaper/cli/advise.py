"""`reaper advise`: what is wrong with a server's connections, how sure that is, and what would cure it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

from reaper.cli.advise_options import STDOUT, Asked, asking_options, write_policy
from reaper.cli.advise_view import as_document, print_advice
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import dsn_option, output_option, policies_option, server_option
from reaper.cli.output import Output, print_document, progress, report_problem
from reaper.cli.service_client import ask_for_looks
from reaper.cli.snapshot import read_snapshot
from reaper.cli.targets import pick_server, read_settings
from reaper.config import Server
from reaper.history.decode import BadHistory
from reaper.history.read import HistoryFile, HistoryReader, by_server
from reaper.history.write import history_files
from reaper.insight.advice.advise import advise as ask
from reaper.insight.advice.advise import untold
from reaper.insight.advice.evidence import Evidence, Watching
from reaper.policy.time import SECOND, Span
from reaper.postgres.errors import ServerError, Unreachable
from reaper.service.observe import observe_for


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
    found = by_server([path for place in places for path in history_files(place)], report_problem)
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
    head = HistoryFile(files[0], report_problem).head()
    size = sum(path.stat().st_size for path in files)
    with progress("reading the history", size) as passed:
        for reading in HistoryReader(files, report_problem, advance=passed).snapshots():
            watching.follow(reading)
    try:
        return Past(watching.evidence(), bool(head and head.anonymous))
    except ValueError:
        message = f"{files[0].parent}: not one whole look is there yet"
        raise Misconfigured(message) from None


_WAYS_IN: Final = """\
If its slots are taken: this needs one, to see settings and every session. There are three ways in:
  1. A reaper that runs is inside: `reaper advise --url http://HOST:9432`, where it listens. Settings
     and limits it does not tell.
  2. A superuser has slots of its own: `reaper advise --dsn "... user=postgres"`.
  3. From PostgreSQL 16 on, so has a role with `GRANT pg_use_reserved_connections`, where
     reserved_connections is more than 0.
What was saved before needs no slot: `reaper advise --history DIR`, or --snapshot FILE."""


_ALIASES: Final = "the names of this history are aliases: a policy file, and SQL, need those of the server"


class _From(NamedTuple):
    """Where to look."""

    policies: Path
    dsn: str | None
    server: str | None


@click.command
@policies_option
@dsn_option
@server_option
@output_option
@asking_options
def advise(*, policies: Path, dsn: str | None, server: str | None, output: Output, **options: object) -> None:
    """Say what is wrong with a server's connections, how sure that is, and the SQL or setting that cures it.

    Nothing is applied. Exit code 1: something needs somebody to act; 2: usage; 3: the server cannot be
    reached. The policy file is needed only when it names the servers.
    """
    asked = Asked.of(options)
    evidence, aliased = _seen(asked, _From(policies, dsn, server))
    findings = ask(evidence)
    if asked.policy is not None:
        if aliased:
            raise Misconfigured(_ALIASES)
        write_policy(evidence, asked.policy, overwrite=asked.overwrite)
    if asked.policy == STDOUT:
        return
    left_out = (*untold(evidence), *([_ALIASES] if aliased else []))
    output = Output.JSON if asked.as_json else output
    if output is Output.TABLE:
        print_advice(findings, evidence, left_out)
    else:
        print_document(as_document(findings, evidence, left_out), output=output)
    if any(found.urgency.acts for found in findings):
        raise click.exceptions.Exit(Exit.NO)


def _seen(asked: Asked, where: _From) -> Past:
    watching = Watching(quiet=asked.idle_for)
    if asked.history:
        return read_history(asked.history, watching, where.server)
    if asked.snapshot is not None:
        watching.add(read_snapshot(asked.snapshot))
        return Past(watching.evidence(), aliased=False)
    if asked.url:
        return Past(ask_for_looks(asked.url, where.server, watching, asked.span), aliased=False)
    settings = read_settings(where.policies) if where.policies.exists() else None
    live = _look(pick_server(settings, where.dsn, where.server), watching, asked.span)
    return Past(live, aliased=False)


def _look(server: Server, watching: Watching, span: Span) -> Evidence:
    try:
        with progress(f"looking at {server.name}", span / SECOND) as passed:
            before, after = asyncio.run(observe_for(server, span, watching.add, passed))
            return watching.evidence(before=before, ground=after)
    except ServerError as error:
        hint = f"\n{_WAYS_IN}" if isinstance(error, Unreachable) else ""
        message = f"{server.name}: {error}{hint}"
        raise ServerTrouble(message) from None
