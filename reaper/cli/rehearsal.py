"""`reaper rehearsal`: whether what was rehearsed may be enforced."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import click

from reaper.cli.audit_events import events_of
from reaper.cli.audit_files import record_files
from reaper.cli.audit_moments import moment_option
from reaper.cli.exits import Exit
from reaper.cli.options import output_option
from reaper.cli.rehearsal_screen import print_assessments
from reaper.cli.show import Output, Row, print_document
from reaper.policy.assessment import Advice, as_document, assess
from reaper.policy.regret import Trial
from reaper.policy.selector import Glob
from reaper.record.rehearsals import Rehearsals


@click.command
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=record_files)
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
    files: Sequence[str],
    policy: Sequence[str],
    server: Sequence[str],
    since: datetime | None,
    any_rules: bool,
    output: Output,
) -> None:
    """Judge what was rehearsed, by the record in FILES: what became of whom it would have taken.

    For each policy: how many came back to life, how sure that is, and at which limit it would be less than
    one in a hundred. Without FILES the file is read that REAPER_AUDIT_LOG names.

    Exit code 1: of some policy it cannot be said that it is safe to enforce, or nothing was rehearsed.
    """
    seen = Rehearsals(since=since)
    for event in events_of(files):
        seen.note(event)
    chosen = _chosen(seen.trials(), policy=policy, server=server)
    found: list[Row] = [as_document(one) for one in assess(chosen, by_any_rules=any_rules)]
    if output is Output.TABLE:
        print_assessments(found)
    else:
        print_document(found, output=output)
    if not found or any(one["advice"] != Advice.SAFE for one in found):
        sys.exit(Exit.NO)


def _chosen(trials: Iterable[Trial], *, policy: Sequence[str], server: Sequence[str]) -> Iterable[Trial]:
    policies, servers = list(map(Glob, policy)), list(map(Glob, server))
    return (
        trial
        for trial in trials
        if (not policies or any(glob.matches(trial.policy) for glob in policies))
        and (not servers or any(glob.matches(trial.server) for glob in servers))
    )
