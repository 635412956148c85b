"""How advice is shown: findings for people, and a document for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Final

from rich.console import Console
from rich.text import Text

from reaper.cli.output import Row, console
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Finding, Fix, Urgency, about
from reaper.policy.text import counted, printable
from reaper.policy.time import isoformat, seconds

_HEADINGS: Final[Mapping[Urgency, tuple[str, str]]] = {
    Urgency.NOW: ("ACT NOW", "bold red"),
    Urgency.SOON: ("SOON", "bold yellow"),
    Urgency.WORTH: ("WORTH KNOWING", "bold cyan"),
}
_MAX_WIDTH: Final = 100
_MIN_WIDTH: Final = 40
_ALTER_SYSTEM: Final = (
    "ALTER SYSTEM needs a superuser and does not run in a transaction; in a managed service, change the "
    "setting in the service's own console."
)


def as_document(findings: Sequence[Finding], evidence: Evidence, missing: Sequence[str]) -> Row:
    """Return the advice for programs."""
    slots = evidence.last.slots
    return {
        "server": evidence.last.server,
        "at": isoformat(evidence.last.at),
        "snapshots": evidence.snapshots,
        "observed_for_s": seconds(evidence.span),
        "idle_for_s": seconds(evidence.idle_limit),
        "slots": {
            "total": slots.total,
            "reserved": slots.reserved,
            "used": slots.used,
            "peak": evidence.peak,
        },
        "findings": [asdict(found) for found in findings],
        "not_observed": list(missing),
    }


def print_advice(findings: Sequence[Finding], evidence: Evidence, missing: Sequence[str]) -> None:
    """Print the advice for people, the most urgent first."""
    out = console()
    for line in _lines(findings, evidence, missing, out):
        # rich must not fold a line: SQL that is copied from the terminal has to stay in one piece.
        out.print(line, soft_wrap=True)


def _lines(
    findings: Sequence[Finding], evidence: Evidence, missing: Sequence[str], out: Console
) -> Iterator[Text]:
    slots = evidence.last.slots
    seen = f"{counted(len(evidence.last.sessions), 'session')} {evidence.observed}"
    until = "" if evidence.facts else f", until {(isoformat(evidence.last.at) or '')[:19]} UTC"
    yield Text.assemble((printable(evidence.last.server), "bold"), f": {seen}{until}")
    limit = about(evidence.idle_limit)
    yield Text(f"{slots.used:,} of {evidence.usable:,} slots used; idle for long: {limit} and more")
    if not findings:
        yield Text()
        yield Text("Nothing to advise: slots are free, and no application seems to waste them.", "green")
    urgency: Urgency | None = None
    for found in findings:
        if found.urgency is not urgency:
            urgency = found.urgency
            yield Text()
            yield Text(*_HEADINGS[urgency])
        yield Text()
        yield from _finding(found, out)
    if missing:
        yield Text()
        yield Text("NOT OBSERVED", "bold")
        for sentence in missing:
            yield from _item("- ", sentence, out)
    statements = [fix.sql for found in findings for fix in found.fixes if fix.sql]
    if statements:
        yield Text()
        yield Text("Nothing was applied.", "dim")
    if any("ALTER SYSTEM" in statement for statement in statements):
        yield from (Text(line, "dim") for line in _wrapped(_ALTER_SYSTEM, 0, out))


def _finding(found: Finding, out: Console) -> Iterator[Text]:
    title = printable(found.title)
    yield from _item("", title[:1].upper() + title[1:], out, style="bold")
    yield Text(f"    confidence: {found.confidence}", "dim")
    for sentence in found.evidence:
        yield from _item("  - ", sentence, out)
    for fix in found.fixes:
        yield from _fix(fix, out)


def _fix(fix: Fix, out: Console) -> Iterator[Text]:
    yield from _item("  > ", fix.action, out)
    for line in filter(None, (fix.sql or fix.setting).split("\n")):
        yield Text(f"      {printable(line)}", "green" if fix.sql else "cyan")
    if fix.cost:
        yield from _item("    ", f"cost: {fix.cost}", out, style="dim")


def _item(mark: str, sentence: str, out: Console, *, style: str = "") -> Iterator[Text]:
    for number, line in enumerate(_wrapped(printable(sentence), len(mark) + 2, out)):
        yield Text(f"  {mark if not number else ' ' * len(mark)}{line}", style)


def _wrapped(sentence: str, indent: int, out: Console) -> list[str]:
    """Return lines for a terminal; through a pipe a sentence stays on one line."""
    if not out.is_terminal:
        return [sentence]
    return wrap(sentence, max(min(out.width, _MAX_WIDTH) - indent, _MIN_WIDTH)) or [""]
