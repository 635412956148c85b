"""`reaper assess`: whether a policy in dry run is safe to enforce, by the outcomes of its dry runs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click
from rich.text import Text

from reaper.audit.dry_runs import DryRunLog
from reaper.cli.audit import events_of
from reaper.cli.errors import Exit
from reaper.cli.options import GroupedCommand, audit_log_files, moment_option, output_option, url_option
from reaper.cli.output import Output, console, print_document, print_table
from reaper.cli.service_client import ServiceClient
from reaper.insight.dryrun.assessment import ASSESSMENT_FORMAT, Advice, assessment_document
from reaper.insight.dryrun.assessment import assess as assess_dry_runs
from reaper.policy.selector import Glob
from reaper.policy.session import Identity, session_words
from reaper.policy.text import counted, percent, printable
from reaper.policy.time import SECOND, Duration, words

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MOST_APPLICATIONS: Final = 8
_MOST_POOLS: Final = 10
_MARKS: Final = {"safe": ("yes", "green"), "not yet": ("no", "red"), "too little seen": ("?", "yellow")}


def _glob_option(name: str, help_text: str) -> Callable[[_Command], _Command]:
    return click.option(f"--{name}", multiple=True, metavar="GLOB", help=help_text)


@click.command(cls=GroupedCommand)
@url_option
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG")
@_glob_option("policy", "Only this policy; may be given several times.")
@_glob_option("server", "Only at this server; may be given several times.")
@click.option(
    "--since",
    metavar="TIME|DURATION",
    callback=moment_option,
    help="From this time on: 2026-01-31T23:59Z (without an offset UTC), or 2h for two hours ago.",
)
@click.option(
    "--any-rules",
    is_flag=True,
    help="Count the dry runs of earlier policy files as well; their limits may have been others.",
)
@output_option
@click.pass_context
def assess(  # noqa: PLR0913 (click passes every option by name)
    context: click.Context,
    /,
    *,
    url: str | None,
    files: tuple[str, ...],
    policy: Sequence[str],
    server: Sequence[str],
    since: datetime | None,
    any_rules: bool,
    output: Output,
) -> None:
    """Assess the dry runs in the audit log in FILES, or those of a running reaper, policy by policy.

    For each policy: what happened to the sessions that it would have terminated, how many were used again,
    how certain that is, and the idle limit at which it would have been less than 1 %. Without FILES,
    the file in REAPER_AUDIT_LOG is read.

    Exit code 1: for some policy it is not certain that it is safe to enforce, or there was no dry run,
    or its safety limit always stopped it.
    """
    if url:
        if server or since or any_rules:
            message = "--server, --since and --any-rules apply to an audit log: leave them out, or --url"
            raise click.UsageError(message)
        found = ServiceClient(url).assessment()
    else:
        (parameter,) = (each for each in context.command.params if each.name == "files")
        files = audit_log_files(context, parameter, files)
        found = _from_audit_log(files, server=server, since=since, any_rules=any_rules)
    found["policies"] = [one for one in found["policies"] if _fits(policy, one["policy"])]
    # A running reaper reports the policies that are stopped now in its metrics and on its page.
    assessed = {one["policy"] for one in found["policies"]}
    stopped = [
        one
        for one in found.get("stopped_by_safety_limit", ())
        if _fits(policy, one["policy"]) and one["policy"] not in assessed
    ]
    found["stopped_by_safety_limit"] = stopped
    found["refill_guarded"] = [one for one in found["refill_guarded"] if _fits(policy, one["policy"])]
    if output is Output.TABLE:
        print_assessments(found["policies"], found["refill_guarded"])
        for one in stopped:
            text = f"{one['policy']} at {one['server']}: {one['reason']}, last at {one['server_time']}"
            console().print(Text(printable(text), style="yellow"))
    else:
        print_document(found, output=output)
    if not found["policies"] or stopped or any(one["advice"] != Advice.SAFE for one in found["policies"]):
        sys.exit(Exit.PROBLEM)


def _from_audit_log(
    files: Sequence[str], *, server: Sequence[str], since: datetime | None, any_rules: bool
) -> dict[str, Any]:
    log = DryRunLog(since=since)
    for event in events_of(files):
        log.note(event)
    dry_runs = (dry_run for dry_run in log.dry_runs() if _fits(server, dry_run.server))
    return {
        "assessment": ASSESSMENT_FORMAT,
        "policies": [assessment_document(one) for one in assess_dry_runs(dry_runs, by_any_rules=any_rules)],
        "stopped_by_safety_limit": [one for one in log.stopped() if _fits(server, one["server"])],
        "refill_guarded": [pool for pool in log.paused() if _fits(server, pool["server"])],
    }


def _fits(patterns: Sequence[str], name: str | None) -> bool:
    return not patterns or any(Glob(pattern).matches(name) for pattern in patterns)


def print_assessments(found: Sequence[Mapping[str, Any]], paused: Sequence[Mapping[str, Any]]) -> None:
    """Print the assessment of each policy, and the groups that the refill guard paused."""
    out = console()
    if not found:
        out.print("No session had a dry run.")
    for number, one in enumerate(found):
        if number:
            out.print()
        mark, style = _MARKS.get(str(one["advice"]), ("?", "yellow"))
        out.print(Text.assemble((printable(one["policy"]), "bold"), "  ", (mark, f"bold {style}")))
        out.print(Text(printable(one["summary"]), style=style))
        for key, text in _lines(one):
            out.print(Text.assemble((f"  {key:22}", "dim"), printable(text)))
        if len(one["applications"]) > 1:
            out.print()
            _print_applications(one)
    if paused:
        out.print()
        out.print(Text("Pools that refill at once", "bold"))
    for pool in paused[:_MOST_POOLS]:
        session = session_words(Identity(*(pool[key] for key in Identity._fields)))
        out.print(Text(printable(f"{session}: {pool['reason']} ({pool['policy']} at {pool['server']})")))
    if len(paused) > _MOST_POOLS:
        out.print(f"and {len(paused) - _MOST_POOLS} more")


def _lines(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    at = f" at {one['servers']} servers" if one["servers"] > 1 else ""
    sessions, applications = counted(one["dry_runs"], "session"), counted(_applications(one), "application")
    slots = counted(one["slots_at_once"], "slot")
    lines = [
        ("would have terminated", f"{sessions} of {applications}{at}"),
        ("would have freed", f"{slots} at once, {one['session_hours']:g} session-hours"),
        ("used again", f"{one['used_again']}{_after(one)}"),
        ("not used again", f"{one['unused']}, and {one['left']} more left by themselves"),
    ]
    if one["regret"] is not None:
        upper = f"up to {percent(one['regret_up_to'])} with 95% confidence"
        lines.append(("regret", f"{percent(one['regret'])}, {upper}"))
    if one["left"]:
        worst = percent(one["regret_if_all_left_were_used"])
        lines.append(("", f"{worst} if all that left were used unseen just before"))
    if limit := one["limit"]:
        matched = f"{limit['used_again']} of the {limit['decided']} that it would have matched"
        lines.append(("less than 1%", f"at {limit['key']}: {limit['limit']}, {matched}"))
    if one["too_soon"] or one["unknown"]:
        lines.append(("not counted", f"{one['too_soon']} too recent, {one['unknown']} unknown"))
    if one["earlier_dry_runs"]:
        lines.append(
            ("left out", f"{one['earlier_dry_runs']} by earlier policy files; --any-rules counts them")
        )
    return lines


def _after(one: Mapping[str, Any]) -> str:
    if one["used_again_after_s"] is None:
        return ""
    return f", half of them within {words(Duration(round(one['used_again_after_s'] * SECOND)))}"


def _applications(one: Mapping[str, Any]) -> int:
    return len(one["applications"]) + int(one["more_applications"])


def _print_applications(one: Mapping[str, Any]) -> None:
    shown = one["applications"][:_MOST_APPLICATIONS]
    rows = [
        {
            "application": each["application"] or "(unnamed)",
            "unused": each["unused"],
            "left": each["left"],
            "used_again": each["used_again"],
            "regret": percent(each["regret"]),
        }
        for each in shown
    ]
    print_table(rows)
    if more := _applications(one) - len(shown):
        console().print(f"and {more} more")
