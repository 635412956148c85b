"""`reaper advise`: what is wrong with a server's connections, how sure that is, and what would cure it."""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import click

from reaper.cli.advice import as_document, print_advice
from reaper.cli.advise_history import Past, read_history
from reaper.cli.advise_options import Asked, asking_options
from reaper.cli.advise_reaper import ask_for_looks
from reaper.cli.exits import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import dsn_option, output_option, policies_option, server_option
from reaper.cli.progress import progress
from reaper.cli.saved import read_snapshot
from reaper.cli.show import Output, print_document
from reaper.cli.starting_file import STDOUT, write_policy
from reaper.cli.targets import pick_server, read_settings
from reaper.config import Server
from reaper.policy.advice.advise import advise as ask
from reaper.policy.advice.advise import untold
from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.watching import Watching
from reaper.policy.spans import SECOND, Span
from reaper.postgres.errors import ServerError, Unreachable
from reaper.service.looking import look_for

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
            return asyncio.run(look_for(server, watching, span, told=passed))
    except ServerError as error:
        hint = f"\n{_WAYS_IN}" if isinstance(error, Unreachable) else ""
        message = f"{server.name}: {error}{hint}"
        raise ServerTrouble(message) from None
