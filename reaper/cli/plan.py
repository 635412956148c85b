"""`reaper plan`: what would be done now, and what spared the others."""

from pathlib import Path

import click

from reaper.cli.options import dsn_option, output_option, policies_option, server_option
from reaper.cli.output import Output, Row, print_document, print_table
from reaper.cli.snapshot import memory_of, snapshot_and_rules, url_option
from reaper.cli.targets import read_settings
from reaper.policy.decide import decide
from reaper.policy.plan import Plan, Spare, Verdict
from reaper.policy.rules import Mode
from reaper.policy.session import Session, Snapshot, whose
from reaper.policy.text import plain
from reaper.policy.time import isoformat, since, words


@click.command
@policies_option
@dsn_option
@server_option
@output_option
@url_option("it knows which pools the refill guard pauses")
@click.option(
    "--all",
    "everybody",
    is_flag=True,
    envvar="REAPER_ALL",
    show_envvar=True,
    help="Show every session, not only those that a policy matches.",
)
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    envvar="REAPER_SNAPSHOT",
    show_envvar=True,
    help="Judge a saved snapshot, with no server; `-` is stdin.",
)
def plan(
    *,
    policies: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    url: str | None,
    everybody: bool,
    snapshot: Path | None,
) -> None:
    """Show what would be done now: matched sessions with policy, reason and age, and why others are skipped.

    Touches nobody. Everybody is taken for seen before, as in the second cycle of a run.
    """
    settings = read_settings(policies)
    seen, rules = snapshot_and_rules(settings, dsn=dsn, server=server, saved=snapshot)
    made = decide(snapshot=seen, rules=rules, memory=memory_of(seen, url))
    verdicts: list[Verdict] = [*made.reaps, *made.rehearsals]
    verdicts += [spare for spare in made.spares if everybody or spare.policy]
    rows = [_row(verdict, seen) for verdict in verdicts]
    if output is not Output.TABLE:
        print_document({**_head(seen, made), "verdicts": rows}, output=output)
        return
    print_table([_line(verdict) for verdict in verdicts], empty="No policy matches any session.")
    click.echo()
    for line in _summary(seen, made):
        click.echo(plain(line))


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
        "brakes": [{"policy": trip.policy.name, "reason": trip.reason} for trip in made.brakes],
    }


def _row(verdict: Verdict, snapshot: Snapshot) -> Row:
    session = verdict.session
    return {
        "verdict": _said(verdict),
        "policy": verdict.policy.name if verdict.policy else None,
        "pid": session.id.pid,
        **session.identity._asdict(),
        "state": session.state,
        "for": _age(session, snapshot),
        "reason": verdict.reason,
    }


def _line(verdict: Verdict) -> Row:
    session = verdict.session
    return {
        "verdict": _said(verdict),
        "policy": verdict.policy.name if verdict.policy else None,
        "pid": session.id.pid,
        "session": whose(session.identity),
        "state": session.state,
        "reason": verdict.reason,
    }


def _said(verdict: Verdict) -> str:
    if isinstance(verdict, Spare):
        return "spare"
    return verdict.action.value if verdict.mode is Mode.ENFORCE else "rehearse"


def _age(session: Session, snapshot: Snapshot) -> str | None:
    age = since(session.state_change, snapshot.at)
    return None if age is None else words(age)


def _summary(snapshot: Snapshot, made: Plan) -> list[str]:
    slots = snapshot.slots
    spared = len(made.matched_spares)
    used = f"{slots.used} of {slots.usable} slots used, {slots.reserved} more are reserved"
    said = [
        f"{used}; {len(snapshot.sessions)} session{'' if len(snapshot.sessions) == 1 else 's'} seen.",
        f"{len(made.reaps)} to act on, {len(made.rehearsals)} to rehearse, {spared} matched and spared.",
        *(f"{trip.policy.name}: {trip.reason}" for trip in made.brakes),
    ]
    if snapshot.unreadable:
        said.append(f"{snapshot.unreadable} sessions cannot be read and are spared: see `reaper check`.")
    return said
