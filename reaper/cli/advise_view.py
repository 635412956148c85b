"""Findings for people and for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Final

from rich.console import Console
from rich.text import Text

from reaper.cli.output import Row, console
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Cure, Finding, Sure, Urgency, about, many, watched
from reaper.policy.text import plain
from reaper.policy.time import isoformat, seconds

_HEADS: Final[Mapping[Urgency, tuple[str, str]]] = {
    Urgency.NOW: ("ACT NOW", "bold red"),
    Urgency.SOON: ("SOON", "bold yellow"),
    Urgency.WORTH: ("WORTH KNOWING", "bold cyan"),
}
_SURE: Final = {
    Sure.COUNTED: "counted",
    Sure.LIKELY: "likely",
    Sure.POSSIBLE: "possible",
}
_WIDEST: Final = 100
_NARROWEST: Final = 40
_MANAGED: Final = (
    "ALTER SYSTEM is for superusers, and stands alone, outside of a transaction; where the server is a "
    "managed service, its settings are in the service's own place for them."
)
_COPIED: Final = " " * 6


def as_document(findings: Sequence[Finding], evidence: Evidence, left_out: Sequence[str]) -> Row:
    """For programs."""
    slots = evidence.last.slots
    return {
        "server": evidence.last.server,
        "at": isoformat(evidence.last.at),
        "looks": evidence.looks,
        "looked_for_s": seconds(evidence.span),
        "idle_for_s": seconds(evidence.quiet),
        "slots": {
            "total": slots.total,
            "reserved": slots.reserved,
            "used": slots.used,
            "peak": evidence.peak,
        },
        "findings": [_row(found) for found in findings],
        "not_told": list(left_out),
    }


def _row(found: Finding) -> Row:
    fields = asdict(found)
    del fields["weight"]
    return fields


def print_advice(findings: Sequence[Finding], evidence: Evidence, left_out: Sequence[str]) -> None:
    """For people: the most urgent first."""
    out = console()
    for line in _lines(findings, evidence, left_out, out):
        # What can be copied stays whole: what a terminal folds by itself it does not break.
        out.print(line, soft_wrap=True)


def _lines(
    findings: Sequence[Finding], evidence: Evidence, left_out: Sequence[str], out: Console
) -> Iterator[Text]:
    slots = evidence.last.slots
    when = "" if evidence.ground else f", until {(isoformat(evidence.last.at) or '')[:19]} UTC"
    yield Text.assemble((plain(evidence.last.server), "bold"), f": {_seen(evidence)}{when}")
    idle = f"idle for long: {about(evidence.quiet)} and more"
    yield Text(f"{slots.used:,} of {evidence.usable:,} slots used; {idle}")
    if not findings:
        yield Text()
        yield Text("Nothing to advise: slots are left, and nobody seems to hold them for nothing.", "green")
    urgency: Urgency | None = None
    for found in findings:
        if found.urgency is not urgency:
            urgency = found.urgency
            title, style = _HEADS[urgency]
            yield Text()
            yield Text(title, style)
        yield Text()
        yield from _finding(found, out)
    if left_out:
        yield Text()
        yield Text("NOT TOLD HERE", "bold")
        for said in left_out:
            yield from _item("- ", said, out)
    statements = [cure.sql for found in findings for cure in found.cures if cure.sql]
    if statements:
        yield Text()
        yield Text("Nothing of this was applied.", "dim")
    if any("ALTER SYSTEM" in statement for statement in statements):
        for line in _wrapped(_MANAGED, 0, out):
            yield Text(line, "dim")


def _seen(evidence: Evidence) -> str:
    return f"{many(len(evidence.last.sessions), 'session')} seen {watched(evidence)}"


def _finding(found: Finding, out: Console) -> Iterator[Text]:
    said = plain(found.says)
    first, *rest = _wrapped(said[:1].upper() + said[1:], 2, out)
    yield Text(f"  {first}", "bold")
    for line in rest:
        yield Text(f"  {line}", "bold")
    yield Text(f"    how sure: {_SURE[found.sure]}", "dim")
    for said in found.evidence:
        yield from _item("  - ", said, out)
    for cure in found.cures:
        yield from _cure(cure, out)


def _cure(cure: Cure, out: Console) -> Iterator[Text]:
    yield from _item("  > ", cure.does, out)
    for line in (cure.sql or cure.setting).split("\n") if cure.sql or cure.setting else ():
        yield Text(f"{_COPIED}{plain(line)}", "green" if cure.sql else "cyan")
    if cure.costs:
        yield from _item("    ", f"costs: {cure.costs}", out, style="dim")


def _item(mark: str, said: str, out: Console, *, style: str = "") -> Iterator[Text]:
    indent = len(mark) + 2
    for number, line in enumerate(_wrapped(plain(said), indent, out)):
        yield Text(f"  {mark if not number else ' ' * len(mark)}{line}", style)


def _wrapped(said: str, indent: int, out: Console) -> list[str]:
    """On a terminal in lines; what goes through a pipe stays whole."""
    if not out.is_terminal:
        return [said]
    return wrap(said, max(min(out.width, _WIDEST) - indent, _NARROWEST)) or [""]
