"""`reaper explain PID`: every policy's answer for one session, and when it would fall due."""

from pathlib import Path

import click
from rich.text import Text

from reaper.cli.errors import ProblemFound
from reaper.cli.options import (
    GroupedCommand,
    config_option,
    dsn_option,
    output_option,
    server_option,
    url_option,
)
from reaper.cli.output import Output, Row, console, print_document
from reaper.cli.snapshot import observe, snapshot_option
from reaper.policy.explain import Explanation, PolicyExplanation
from reaper.policy.explain import explain as explain_session
from reaper.policy.plan import Candidate
from reaper.policy.rules import Mode
from reaper.policy.session import Snapshot
from reaper.policy.text import printable
from reaper.policy.time import Duration, isoformat, words


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@output_option
@url_option
@snapshot_option("Explain a session of")
@click.argument("pid", type=int)
def explain(
    *,
    config: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    url: str | None,
    snapshot: Path | None,
    pid: int,
) -> None:
    """Explain what every policy says of the session PID, and when it would fall due.

    Exit code 1: there is no such session, or it cannot be read.
    """
    observed, rules, memory, note = observe(
        config, dsn=dsn, server=server, url=url, saved=snapshot, every_fact=True, command="explain"
    )
    session = next((each for each in observed.sessions if each.id.pid == pid), None)
    if session is None:
        hidden = observed.unreadable
        more = f"; {hidden} sessions cannot be read, see `reaper check`" if hidden else ""
        message = f"{observed.server}: no client session has pid {pid}{more}"
        raise ProblemFound(message)
    answer = explain_session(session, snapshot=observed, rules=rules, memory=memory)
    if output is Output.TABLE:
        _print(answer, observed)
        for line in (note or "").splitlines():
            click.echo(printable(line))
    else:
        print_document(_document(answer, observed), output=output)


def _decision(answer: Explanation) -> str:
    decision = answer.decision
    if not isinstance(decision, Candidate):
        return f"skipped: {decision.reason}"
    done = decision.action.value if decision.mode is Mode.ENFORCE else f"dry run ({decision.action.value})"
    return f"{done} by {decision.policy.name}: {decision.reason}"


def _due(answer: PolicyExplanation, snapshot: Snapshot) -> str:
    if answer.due is None:
        return "never as it is"
    if answer.protections or answer.allowlist:
        return f"never: {'protected' if answer.protections else 'on the allowlist'}"
    left = answer.due - snapshot.at
    return f"in {words(Duration(left))}" if left > 0 else "now"


def _document(answer: Explanation, snapshot: Snapshot) -> Row:
    session = answer.session
    return {
        "server": snapshot.server,
        "at": isoformat(snapshot.at),
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        "state": session.state,
        "state_change": isoformat(session.state_change),
        "xact_start": isoformat(session.xact_start),
        "decision": _decision(answer),
        "policies": [_policy(each, snapshot) for each in answer.policies],
    }


def _policy(answer: PolicyExplanation, snapshot: Snapshot) -> Row:
    return {
        "policy": answer.policy.name,
        "mode": answer.policy.mode.value,
        "matches": answer.matches,
        "criteria": [each._asdict() for each in answer.results],
        "protected": [protection.reason for protection in answer.protections],
        "allowlist": answer.allowlist,
        "rests": answer.rests,
        "due": isoformat(answer.due),
        "due_in": _due(answer, snapshot),
    }


def _print(answer: Explanation, snapshot: Snapshot) -> None:
    out = console()
    for key, value in _document(answer, snapshot).items():
        if key not in {"policies", "decision"}:
            out.print(Text.assemble((f"{key:14}", "dim"), printable(value)))
    out.print(Text.assemble((f"{'decision':14}", "dim"), (printable(_decision(answer)), "bold")))
    for each in answer.policies:
        out.print()
        out.print(Text.assemble((each.policy.name, "bold"), (f" ({each.policy.mode.value})", "dim")))
        for line in _lines(each, snapshot):
            out.print(line)


def _lines(answer: PolicyExplanation, snapshot: Snapshot) -> list[Text]:
    against = [("protected", protection.reason) for protection in answer.protections]
    against += [("allowlist", answer.allowlist)] if answer.allowlist else []
    against += [("rests", answer.rests)] if answer.rests else []
    return [
        *(_line("yes" if each.holds else "no", each.criterion, each.words) for each in answer.results),
        *(_line("but", key, text) for key, text in against),
        _line("", "due", _due(answer, snapshot)),
    ]


def _line(holds: str, key: str, text: str) -> Text:
    return Text.assemble(
        (f"  {holds:4}", "green" if holds == "yes" else "red"), (f"{key:20}", "dim"), printable(text)
    )
