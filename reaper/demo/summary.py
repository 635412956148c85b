"""The end: what the demo has shown, in numbers, and what to do next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.text import Text

from reaper.audit.events import INTENT, Event
from reaper.audit.reader import open_intents, read_events
from reaper.demo.clients import Proof
from reaper.demo.policy_file import NAME
from reaper.demo.score import Luck, Score
from reaper.policy.plan import Result

RECORD: Final = "audit.jsonl"

_NEXT: Final = (
    (f"reaper check -p {NAME}", "is it right, may the reaper see and act"),
    (f"reaper plan -p {NAME}", "whom it would take now, whom not, why"),
    (f"reaper run --dry-run -p {NAME}", "rehearse it; nobody is touched"),
)
_LEFT: Final = 12
_NEVER_DUE: Final = "never idle for long: no policy matches"


def summary(score: Score, record: Path, console: str, kept: Path | None) -> Iterator[Text]:
    """Line by line; `console` is what the forgotten console was told in the end."""
    yield from _ended(score, console)
    yield from _lives(score)
    yield from _customer(score)
    yield from _recorded(record, kept)
    yield from _next()


def _ended(score: Score, console: str) -> Iterator[Text]:
    yield _head(f"Terminated: {score.count(Result.TERMINATED)} sessions")
    for policy in sorted({policy for policy, result in score.tally.results if result is Result.TERMINATED}):
        ended = score.count(Result.TERMINATED, policy)
        announced = score.count(Result.REHEARSED, policy)
        yield _line(policy, f"{ended:>2}, the dry run had announced {announced}", "red", width=24)
    yield _line("", "anna is back in psql, and types COMMIT:")
    yield _line("", console)


def _lives(score: Score) -> Iterator[Text]:
    yield _head("Spared: how they fare by their own account, and why")
    for proof in score.proofs:
        line = _line(proof.application, _fares(proof), "green" if proof.well else "bold red", width=12)
        yield line.append(score.spared.get(proof.application, _NEVER_DUE), style="dim")


def _fares(proof: Proof) -> str:
    return f"{proof.words if proof.well else 'IS DEAD: ' + proof.words:23} "


def _customer(score: Score) -> Iterator[Text]:
    yield _head("The customer")
    yield _line("before", f"{_luck(score.before)}: {score.last_words}", "red")
    yield _line("after", _luck(score.after), "green")


def _luck(luck: Luck) -> str:
    return f"{luck.refused} of {luck.tries} tries refused"


def _recorded(record: Path, kept: Path | None) -> Iterator[Text]:
    events = list(read_events(record))
    intents = sum(isinstance(event, Event) and event.name == INTENT for event in events)
    unsettled = len(open_intents(events))
    yield _head("The record")
    yield _line(RECORD, f"{intents} intents, each written before its act; {unsettled} without an outcome")
    where = f"kept in {kept}" if kept else "gone with the server; --keep keeps it, the policies and the log"
    yield _line("", where)


def _next() -> Iterator[Text]:
    yield _head("What next, with policies of your own")
    for command, answer in _NEXT:
        yield _line(command, answer, "bold", width=39)


def _head(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _line(name: str, words: str, style: str = "dim", *, width: int = _LEFT) -> Text:
    return Text().append(f"  {name:{width}}", style=style).append(words, style="" if name else "dim")
