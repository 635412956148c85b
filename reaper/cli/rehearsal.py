"""`reaper rehearsal`: whether what was rehearsed may be enforced."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from click.core import ParameterSource

from reaper.cli.audit_events import events_of
from reaper.cli.audit_files import record_files
from reaper.cli.audit_moments import moment_option
from reaper.cli.exits import Exit
from reaper.cli.options import output_option
from reaper.cli.rehearsal_screen import print_assessments
from reaper.cli.show import Output, print_document
from reaper.policy.assessment import FORMAT, Advice, as_document, assess
from reaper.policy.selector import Glob
from reaper.record.rehearsals import Rehearsals


def _files(context: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> tuple[str, ...]:
    """The record, unless a reaper that runs is asked; what was typed counts more than the environment."""
    if context.params.get("url"):
        if not files or context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
            return ()
        context.params["url"] = None
    return record_files(context, parameter, files)


@click.command
@click.option(
    "--url",
    metavar="URL",
    envvar="REAPER_URL",
    show_envvar=True,
    is_eager=True,
    help="Ask the reaper that runs at this address, such as http://127.0.0.1:9432, what it has seen so far.",
)
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=_files)
@click.option(
    "--policy",
    multiple=True,
    metavar="GLOB",
    envvar="REAPER_AUDIT_POLICY",
    show_envvar=True,
    help="Only this policy; may be given several times.",
)
@click.option(
    "--server",
    multiple=True,
    metavar="GLOB",
    envvar="REAPER_AUDIT_SERVER",
    show_envvar=True,
    help="Only at this server; may be given several times.",
)
@click.option(
    "--since",
    metavar="TIME|DURATION",
    callback=moment_option,
    envvar="REAPER_AUDIT_SINCE",
    show_envvar=True,
    help="From this time on: 2026-01-31T23:59Z (without an offset UTC), or 2h for two hours ago.",
)
@click.option(
    "--any-rules",
    is_flag=True,
    envvar="REAPER_ANY_RULES",
    show_envvar=True,
    help="Count what earlier policy files rehearsed as well; their limits may have been others.",
)
@output_option
def rehearsal(
    *,
    url: str | None,
    files: Sequence[str],
    policy: Sequence[str],
    server: Sequence[str],
    since: datetime | None,
    any_rules: bool,
    output: Output,
) -> None:
    """Judge what was rehearsed, by the record in FILES or by a reaper that runs.

    For each policy: what became of whom it would have terminated, how many came back to life, how sure that
    is, and at which limit it would be less than one in a hundred. Without FILES the file is read that
    REAPER_AUDIT_LOG names.

    Exit code 1: of some policy it cannot be said that it is safe to enforce, or nothing was rehearsed.
    """
    if url and (server or since or any_rules):
        message = "--server, --since and --any-rules ask the record: leave them out, or --url"
        raise click.UsageError(message)
    told = _asked(url) if url else _recorded(files, server=server, since=since, any_rules=any_rules)
    told["policies"] = found = [one for one in told["policies"] if _fits(policy, one["policy"])]
    told["left_alone"] = [one for one in told["left_alone"] if _fits(policy, one["policy"])]
    if output is Output.TABLE:
        print_assessments(found, told["left_alone"])
    else:
        print_document(told, output=output)
    if not found or any(one["advice"] != Advice.SAFE for one in found):
        sys.exit(Exit.NO)


def _recorded(
    files: Sequence[str], *, server: Sequence[str], since: datetime | None, any_rules: bool
) -> dict[str, Any]:
    seen = Rehearsals(since=since)
    for event in events_of(files):
        seen.note(event)
    trials = (trial for trial in seen.trials() if _fits(server, trial.server))
    held = (one for one in seen.held() if _fits(server, one.server))
    return {
        "rehearsal": FORMAT,
        "policies": [as_document(one) for one in assess(trials, held, by_any_rules=any_rules)],
        "left_alone": [pool for pool in seen.left_alone() if _fits(server, pool["server"])],
    }


def _asked(url: str) -> dict[str, Any]:
    # Loaded where it is needed: a record is read without a network.
    from reaper.cli.rehearsal_reaper import ask_for_verdicts  # noqa: PLC0415

    return ask_for_verdicts(url)


def _fits(patterns: Sequence[str], name: str | None) -> bool:
    return not patterns or any(Glob(pattern).matches(name) for pattern in patterns)
