"""`reaper audit verify`: whether the record is as it was written."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import click

from reaper.audit.chain import Readable, opened_as_it_stands
from reaper.audit.rotation import records_of
from reaper.audit.verify import Damage, Kind, Verification
from reaper.cli.errors import Exit, Misconfigured
from reaper.cli.options import output_option, record_files
from reaper.cli.output import Output, print_document
from reaper.policy.text import plain

_MOST_TOLD: Final = 100
"""So many damages are told one by one; of the rest only the number."""
_SHORT: Final = 16
"""Digits of a digest that are enough for people."""
_GONE: Final = "lines were taken from the end, or the whole file was written anew"

Followed = tuple[str, Verification]


def _digests(_: click.Context, __: click.Parameter, heads: tuple[str, ...]) -> tuple[str, ...]:
    for head in heads:
        if not re.fullmatch("[0-9a-f]{64}", head):
            message = f"{plain(head)} is no digest: copy all 64 digits of it."
            raise click.BadParameter(message)
    return heads


@click.command(short_help="Find every line that was edited, removed, inserted, moved or torn.")
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=record_files)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="DIGEST",
    callback=_digests,
    envvar="REAPER_AUDIT_HEAD",
    show_envvar=True,
    help="A head that was noted elsewhere, and must lie in the chain; may be given several times.",
)
@output_option
def verify(*, files: tuple[str, ...], heads: tuple[str, ...], output: Output) -> None:
    """Is the record in FILES as it was written? - is standard input.

    The rotated copies beside a file are followed too, the oldest first. Exit code 1: a line was edited,
    removed, inserted, moved or torn, and the record itself does not tell of it.
    """
    anchors = set(heads)
    verifier = _Verifier(anchors)
    told = list(islice(damages := verifier.damages(files), _MOST_TOLD))
    serious = sum(not damage.explained for damage in told)
    more = 0
    for damage in damages:
        more += 1
        serious += not damage.explained
    if output is Output.TABLE:
        _tell(told, more, verifier.followed, serious)
    else:
        print_document(_document(told, more, verifier.followed, serious), output=output)
    if serious:
        sys.exit(Exit.NO)


class _Verifier:
    def __init__(self, anchors: set[str]) -> None:
        self._anchors = anchors
        self.followed: list[Followed] = []

    def damages(self, files: Sequence[str]) -> Iterator[Damage]:
        """All there are, in their order; an anchor that was met nowhere last."""
        if "-" in files:
            yield from self._follow("-", [None])
        try:
            records = records_of(Path(file) for file in files if file != "-")
        except OSError as error:
            message = f"The folder of the record cannot be read: {error.strerror or error}."
            raise Misconfigured(message) from error
        for record in records:
            yield from self._follow(str(record[-1]), record)
        for anchor in sorted(self._anchors):
            sentence = f"a head that was noted elsewhere is not in the chain: {_GONE}"
            yield Damage(kind=Kind.UNKNOWN_HEAD, place=None, sentence=sentence, expected=anchor)

    def _follow(self, name: str, record: Sequence[Path | None]) -> Iterator[Damage]:
        verification = Verification(anchors=self._anchors)
        self.followed.append((name, verification))
        for file in record:
            with _opened(file) as stream:
                yield from verification.read(str(file or "-"), stream)
        yield from verification.finish()


@contextmanager
def _opened(file: Path | None) -> Iterator[Readable]:
    try:
        if file is None:
            yield sys.stdin.buffer
        else:
            with opened_as_it_stands(file) as stream:
                yield stream
    except OSError as error:
        message = f"The record {plain(file or '-')} cannot be read: {error.strerror or error}."
        raise Misconfigured(message) from error


def _tell(told: Sequence[Damage], more: int, followed: Sequence[Followed], serious: int) -> None:
    for damage in told:
        click.echo(plain(damage))
        if damage.expected or damage.found:
            expected, found = (digest[:_SHORT] if digest else "nothing" for digest in _both(damage))
            click.echo(f"  expected {plain(expected)}, found {plain(found)}")
    if more:
        click.echo(f"... and {more} more")
    for name, verification in followed:
        _tell_of(name, verification)
    if serious:
        places = "1 place" if serious == 1 else f"{serious} places"
        click.echo(f"Not intact: {places} that nothing in the record explains.")
    elif any(verification.lines for _, verification in followed):
        click.echo("Intact.")
    else:
        click.echo("Nothing to verify: no line is in the chain.")


def _both(damage: Damage) -> tuple[str | None, str | None]:
    return damage.expected, damage.found


def _tell_of(name: str, verification: Verification) -> None:
    lines = "1 line" if verification.lines == 1 else f"{verification.lines:,} lines"
    click.echo(plain(f"{name}: {lines} in the chain"))
    if verification.before:
        click.echo(f"  {verification.before} from before the chain began, of which it says nothing")
    if verification.foreign:
        click.echo(f"  {verification.foreign} of others in between")
    if verification.follows:
        click.echo(f"  begins behind {plain(verification.follows)}, in a copy that is not here")
    for intent, place in islice(verification.open_intents.items(), _MOST_TOLD):
        click.echo(plain(f"  no outcome yet: intent {intent}, {place}"))
    if verification.last:
        last = verification.last
        click.echo(plain(f"  head {last.digest} of {last.time}: note it elsewhere"))


def _document(told: Sequence[Damage], more: int, followed: Sequence[Followed], serious: int) -> object:
    return {
        "intact": not serious,
        "records": [_record(name, verification) for name, verification in followed],
        "damages": [_damage(damage) for damage in told],
        "more_damages": more,
    }


def _record(name: str, verification: Verification) -> dict[str, object]:
    last = verification.last
    return {
        "file": name,
        "lines": verification.lines,
        "before_the_chain": verification.before,
        "lines_of_others": verification.foreign,
        "follows": verification.follows,
        "head": last and {"digest": last.digest, "time": last.time, "at": str(last.place)},
        "open_intents": [
            {"intent": intent, "at": str(place)} for intent, place in verification.open_intents.items()
        ],
    }


def _damage(damage: Damage) -> dict[str, object]:
    return {
        "file": damage.place and damage.place.file,
        "line": damage.place and damage.place.line,
        "kind": damage.kind,
        "sentence": damage.sentence,
        "expected": damage.expected,
        "found": damage.found,
        "explained": damage.explained,
    }
