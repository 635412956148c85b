"""`reaper rehearsal`: whether what was rehearsed may be enforced."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click
from click.core import ParameterSource
from rich.text import Text

from reaper.audit.dry_runs import Rehearsals
from reaper.cli.audit import events_of
from reaper.cli.errors import Exit
from reaper.cli.options import moment_option, output_option, record_files
from reaper.cli.output import Output, console, print_document, print_table
from reaper.insight.dryrun.assessment import ASSESSMENT_FORMAT as FORMAT
from reaper.insight.dryrun.assessment import Advice, assess, held_words
from reaper.insight.dryrun.assessment import assessment_document as as_document
from reaper.policy.selector import Glob
from reaper.policy.session import Identity, whose
from reaper.policy.text import plain
from reaper.policy.time import SECOND, Span, words

_MOST_APPLICATIONS: Final = 8
_MOST_POOLS: Final = 10
_MARKS: Final = {"safe": ("yes", "green"), "not yet": ("no", "red"), "too little seen": ("?", "yellow")}


def print_assessments(found: Sequence[Mapping[str, Any]], left_alone: Sequence[Mapping[str, Any]]) -> None:
    """Print the documents of `as_document`, one policy after the other, and the pools that refill."""
    out = console()
    if not found:
        out.print("Nothing was rehearsed.")
    for number, one in enumerate(found):
        if number:
            out.print()
        mark, style = _MARKS.get(str(one["advice"]), ("?", "yellow"))
        out.print(Text.assemble((plain(one["policy"]), "bold"), "  ", (mark, f"bold {style}")))
        out.print(Text(plain(one["said"]), style=style))
        for key, said in _lines(one):
            out.print(Text.assemble((f"  {key:22}", "dim"), plain(said)))
        if len(one["applications"]) > 1:
            out.print()
            _print_applications(one)
    if left_alone:
        out.print()
        out.print(Text("Pools that refill at once", "bold"))
    for pool in left_alone[:_MOST_POOLS]:
        who = whose(Identity(*(pool[key] for key in Identity._fields)))
        out.print(Text(plain(f"{who}: {pool['reason']} ({pool['policy']} at {pool['server']})")))
    if len(left_alone) > _MOST_POOLS:
        out.print(f"and {len(left_alone) - _MOST_POOLS} more")


def _lines(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    at = f" at {one['servers']} servers" if one["servers"] > 1 else ""
    lines = [
        (
            "would have terminated",
            f"{_many(one['acts'], 'session')} of {_many(_applications(one), 'application')}{at}",
        ),
        (
            "would have freed",
            f"{_many(one['slots_at_once'], 'slot')} at once, {one['session_hours']:g} session-hours",
        ),
        ("used again", f"{one['revived']}{_after(one)}"),
        ("not used again", f"{one['unused']}, and {one['left']} more left by themselves"),
    ]
    if held := held_words(one["held_back"]):
        lines.insert(1, ("more, at once", f"held back: {held}"))
    if one["regret"] is not None:
        sure = f"up to {_percent(one['regret_up_to'])} with 95 % confidence"
        lines.append(("regret", f"{_percent(one['regret'])}, {sure}"))
    if one["left"]:
        worst = _percent(one["regret_if_all_who_left_were_used"])
        lines.append(("", f"{worst} if all who left were used unseen just before"))
    if one["limit"]:
        limit = one["limit"]
        met = f"{limit['revived']} of the {limit['judged']} that it would have met"
        lines.append(("less than 1 %", f"at {limit['key']}: {limit['limit']}, {met}"))
    if one["too_soon"] or one["unknown"]:
        lines.append(("not counted", f"{one['too_soon']} too soon to tell, {one['unknown']} unknown"))
    if one["earlier_acts"]:
        lines.append(("left out", f"{one['earlier_acts']} by earlier policy files; --any-rules counts them"))
    return lines


def _after(one: Mapping[str, Any]) -> str:
    if one["revived_after_s"] is None:
        return ""
    return f", half of them within {words(Span(round(one['revived_after_s'] * SECOND)))}"


def _applications(one: Mapping[str, Any]) -> int:
    return len(one["applications"]) + int(one["more_applications"])


def _print_applications(one: Mapping[str, Any]) -> None:
    shown = one["applications"][:_MOST_APPLICATIONS]
    rows = [
        {
            "application": each["application"] or "(unnamed)",
            "unused": each["unused"],
            "left": each["left"],
            "used_again": each["revived"],
            "regret": "" if each["regret"] is None else _percent(each["regret"]),
        }
        for each in shown
    ]
    print_table(rows)
    if more := _applications(one) - len(shown):
        console().print(f"and {more} more")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _many(count: int, one: str) -> str:
    return f"{count} {one if count == 1 else one + 's'}"


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
    from reaper.cli.service_client import ServiceClient  # noqa: PLC0415

    return ServiceClient(url).assessment()


def _fits(patterns: Sequence[str], name: str | None) -> bool:
    return not patterns or any(Glob(pattern).matches(name) for pattern in patterns)
