"""`reaper plan`: what would be done now, and why other sessions are skipped."""

from pathlib import Path

import click

from reaper.cli.options import dsn_option, env_option, output_option, policies_option, server_option
from reaper.cli.output import Output, Row, print_document, print_table
from reaper.cli.snapshot import memory_of, snapshot_and_rules, snapshot_option, url_option
from reaper.cli.targets import read_settings
from reaper.policy.decide import decide
from reaper.policy.plan import Decision, Plan, Skip
from reaper.policy.rules import Mode
from reaper.policy.session import Session, Snapshot, session_words
from reaper.policy.text import counted, printable
from reaper.policy.time import isoformat, since, words


@click.command
@policies_option
@dsn_option
@server_option
@output_option
@url_option("it knows which pools the refill guard pauses")
@env_option(
    "--all",
    "all_sessions",
    is_flag=True,
    help="Show every session, not only those that a policy matches.",
)
@snapshot_option("Judge")
def plan(
    *,
    policies: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    url: str | None,
    all_sessions: bool,
    snapshot: Path | None,
) -> None:
    """Show what would be done now: matched sessions with policy, reason and age, and why others are skipped.

    It terminates no session. All sessions count as seen before, as in the second cycle of a run.
    """
    settings = read_settings(policies)
    observed, rules = snapshot_and_rules(settings, dsn=dsn, server=server, saved=snapshot)
    made = decide(snapshot=observed, rules=rules, memory=memory_of(observed, url))
    decisions: list[Decision] = [*made.candidates, *made.dry_run_candidates]
    decisions += [skip for skip in made.skips if all_sessions or skip.policy]
    rows = [_row(decision, observed) for decision in decisions]
    if output is not Output.TABLE:
        print_document({**_head(observed, made), "decisions": rows}, output=output)
        return
    lines = [_line(*each) for each in zip(rows, decisions, strict=True)]
    print_table(lines, empty="No policy matches any session.")
    click.echo()
    for line in _summary(observed, made):
        click.echo(printable(line))


def _head(snapshot: Snapshot, made: Plan) -> Row:
    return {
        "server": snapshot.server,
        "at": isoformat(snapshot.at),
        "slots": {
            "total": snapshot.slots.total,
            "reserved": snapshot.slots.reserved,
            "used": snapshot.slots.used,
        },
        "unreadable": snapshot.unreadable,
        "safety_limits": [{"policy": trip.policy.name, "reason": trip.reason} for trip in made.trips],
    }


def _row(decision: Decision, snapshot: Snapshot) -> Row:
    session = decision.session
    return {
        "decision": _decision(decision),
        "policy": decision.policy.name if decision.policy else None,
        "pid": session.id.pid,
        **session.identity._asdict(),
        "state": session.state,
        "for": _age(session, snapshot),
        "reason": decision.reason,
    }


def _line(row: Row, decision: Decision) -> Row:
    first = {key: row[key] for key in ("decision", "policy", "pid")}
    session = session_words(decision.session.identity)
    return {**first, "session": session, "state": row["state"], "reason": row["reason"]}


def _decision(decision: Decision) -> str:
    if isinstance(decision, Skip):
        return "skip"
    return decision.action.value if decision.mode is Mode.ENFORCE else "dry-run"


def _age(session: Session, snapshot: Snapshot) -> str | None:
    age = since(session.state_change, snapshot.at)
    return None if age is None else words(age)


def _summary(snapshot: Snapshot, made: Plan) -> list[str]:
    slots = snapshot.slots
    acted, dry_run = len(made.candidates), len(made.dry_run_candidates)
    skipped = len(made.matched_skips)
    used = f"{slots.used} of {slots.usable} slots used, {slots.reserved} more are reserved"
    lines = [
        f"{used}; {counted(len(snapshot.sessions), 'session')} seen.",
        f"{acted} to terminate or cancel, {dry_run} in a dry run, {skipped} matched and skipped.",
        *(f"{trip.policy.name}: {trip.reason}" for trip in made.trips),
    ]
    if snapshot.unreadable:
        lines.append(f"{snapshot.unreadable} sessions cannot be read and are skipped: see `reaper check`.")
    return lines
