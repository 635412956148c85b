"""`reaper plan`: what would be done now, and why other sessions are skipped."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import JustifyMethod

from reaper.cli.options import (
    GroupedCommand,
    config_option,
    dsn_option,
    output_option,
    server_option,
    url_option,
)
from reaper.cli.output import Cells, Output, Row, print_document, print_groups, print_table
from reaper.cli.snapshot import observe, snapshot_option
from reaper.policy.decide import decide
from reaper.policy.plan import Decision, Plan, Skip, SkipReason
from reaper.policy.rules import Mode, Rules
from reaper.policy.selector import Glob
from reaper.policy.session import Session, Snapshot, session_words
from reaper.policy.text import counted, printable
from reaper.policy.time import Duration, isoformat, seconds, since, words

_COLUMNS: Final[Mapping[str, JustifyMethod]] = {
    "policy, application": "left",
    "sessions": "right",
    "oldest": "right",
    "decision": "left",
}
_NONE: Final = "No policy matches any session."


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@output_option
@url_option
@click.option("--all", "unmatched", is_flag=True, help="Show sessions that no policy matches, too.")
@click.option("--sessions", is_flag=True, help="Show one row for each session.")
@click.option("--policy", "named", multiple=True, metavar="GLOB", help="Only decisions of this policy.")
@click.option("--application", multiple=True, metavar="GLOB", help="Only sessions of this application.")
@click.option("--role", multiple=True, metavar="GLOB", help="Only sessions of this role.")
@snapshot_option("Judge")
def plan(  # noqa: PLR0913 (one argument for each option)
    *,
    config: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    url: str | None,
    unmatched: bool,
    sessions: bool,
    named: tuple[str, ...],
    application: tuple[str, ...],
    role: tuple[str, ...],
    snapshot: Path | None,
) -> None:
    """Show what would be terminated now, and what is skipped and why, by policy and application.

    It terminates no session. All sessions count as seen before, as in the second cycle of a run.
    """
    observed, rules, memory, note = observe(
        config, dsn=dsn, server=server, url=url, saved=snapshot, command="plan"
    )
    made = decide(snapshot=observed, rules=rules, memory=memory)
    decisions: list[Decision] = [*made.candidates, *made.dry_run_candidates]
    decisions += [skip for skip in made.skips if unmatched or skip.policy]
    shown = [
        each
        for each in decisions
        if _matches(named, each.policy.name if each.policy else None)
        and _matches(application, each.session.identity.application)
        and _matches(role, each.session.identity.role)
    ]
    if output is not Output.TABLE:
        rows = [_row(decision, observed) for decision in shown]
        print_document({**_head(observed, made), "note": note, "decisions": rows}, output=output)
        return
    if sessions:
        print_table([_line(each, observed) for each in shown], empty=_NONE)
    elif shown:
        print_groups(_COLUMNS, _groups(made, shown, rules))
    else:
        click.echo(_NONE)
    click.echo()
    for line in [*_summary(observed, made), *(note or "").splitlines()]:
        click.echo(printable(line))


def _matches(globs: tuple[str, ...], value: str | None) -> bool:
    return not globs or any(Glob(text).matches(value) for text in globs)


def _head(snapshot: Snapshot, made: Plan) -> Row:
    slots = snapshot.slots
    return {
        "server": snapshot.server,
        "at": isoformat(snapshot.at),
        "slots": {"total": slots.total, "reserved": slots.reserved, "used": slots.used},
        "unreadable": snapshot.unreadable,
        "safety_limits": [{"policy": trip.policy.name, "reason": trip.reason} for trip in made.trips],
    }


def _row(decision: Decision, snapshot: Snapshot) -> Row:
    session = decision.session
    age = _age(session, snapshot)
    return {
        "decision": _word(decision),
        "policy": decision.policy.name if decision.policy else None,
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        "state": session.state,
        "age_s": None if age is None else seconds(age),
        "reason": decision.reason,
    }


def _line(decision: Decision, snapshot: Snapshot) -> Row:
    session, age = decision.session, _age(decision.session, snapshot)
    return {
        "decision": _word(decision),
        "pid": session.id.pid,
        "age": None if age is None else words(age),
        "policy": decision.policy.name if decision.policy else None,
        "session": session_words(session.identity),
        "reason": decision.reason,
    }


def _groups(
    made: Plan, decisions: Sequence[Decision], rules: Rules
) -> Iterator[tuple[Cells, Iterable[Cells]]]:
    """Yield each policy with what it does, and its applications with the decisions about them."""
    tripped = {trip.policy.name: f"nothing, {trip.reason}" for trip in made.trips}
    for policy in (*rules.policies, None):
        members = [each for each in decisions if each.policy == policy]
        if members:
            name = policy.name if policy else "(no policy)"
            mode = policy.mode.value if policy else ""
            rows = _applications(made, members)
            yield _cells(name, members, made, tripped.get(name, mode)), rows


def _applications(made: Plan, members: Sequence[Decision]) -> Iterator[Cells]:
    groups = defaultdict[tuple[str, str], list[Decision]](list)
    for each in members:
        groups[each.session.identity.application or "(unnamed)", _group_words(each)].append(each)
    for (application, decision), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        yield _cells(application, group, made, decision)


def _cells(name: str, decisions: Sequence[Decision], made: Plan, decision: str) -> Cells:
    ages = [age for each in decisions if (age := _age(each.session, made.snapshot)) is not None]
    return name, len(decisions), words(max(ages)) if ages else "", decision


def _word(decision: Decision) -> str:
    if isinstance(decision, Skip):
        return "skip"
    return decision.action.value if decision.mode is Mode.ENFORCE else "dry-run"


def _group_words(decision: Decision) -> str:
    """What would happen, without numbers that differ from session to session."""
    if not isinstance(decision, Skip):
        return decision.action.value
    match decision.by:
        case SkipReason.MAX_PER_CYCLE if decision.policy:
            return f"later: {decision.policy.max_per_cycle} per cycle"
        case SkipReason.SAFETY_LIMIT:
            return "nothing"
        case SkipReason.MAX_SESSIONS:
            return "skip: within max_sessions"
    return f"skip: {decision.reason}"


def _age(session: Session, snapshot: Snapshot) -> Duration | None:
    age = since(session.state_change, snapshot.at)
    return None if age is None else Duration(max(age, 0))  # a state may begin while the statement runs


def _summary(snapshot: Snapshot, made: Plan) -> list[str]:
    slots = snapshot.slots
    acted, dry_run = len(made.candidates), len(made.dry_run_candidates)
    skipped = len(made.matched_skips)
    used = f"{slots.used} of {slots.usable} slots used, {slots.reserved} more are reserved"
    lines = [
        f"{used}; {counted(len(snapshot.sessions), 'session')} seen.",
        f"{acted} to terminate or cancel, {dry_run} in a dry run, {skipped} matched and skipped.",
    ]
    if made.trips:
        names = ", ".join(trip.policy.name for trip in made.trips)
        lines.append(
            f"hint: {names}: match fewer sessions, or raise the limit: `safety_limit: {{share: 80%}}`"
        )
    if snapshot.unreadable:
        lines.append(f"{snapshot.unreadable} sessions cannot be read and are skipped: see `reaper check`.")
    return lines
