"""`reaper audit verify`: check that the audit log is as it was written."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import click

from reaper.audit.reader import LineSource, WrittenFile, opened
from reaper.audit.verify import Problem, ProblemKind, Verification
from reaper.cli.audit import audit_logs
from reaper.cli.errors import Exit, Misconfigured
from reaper.cli.options import GroupedCommand, audit_log_files, output_option
from reaper.cli.output import Output, print_document
from reaper.policy.text import counted, printable

_MOST_PRINTED: Final = 100
"""The rest of the problems is counted."""
_GONE: Final = "lines were taken from the end, or the whole file was written anew"

_Verified = tuple[str, Verification]


def _digests(_: click.Context, __: click.Parameter, heads: tuple[str, ...]) -> tuple[str, ...]:
    for head in heads:
        if not re.fullmatch("[0-9a-f]{64}", head):
            message = f"{printable(head)} is no digest: copy all 64 digits of it."
            raise click.BadParameter(message)
    return heads


@click.command(cls=GroupedCommand, short_help="Find every line that was edited, removed, inserted or torn.")
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=audit_log_files)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="DIGEST",
    callback=_digests,
    help="A head that was noted elsewhere and must be in the chain; may be given several times.",
)
@output_option
def verify(*, files: tuple[str, ...], heads: tuple[str, ...], output: Output) -> None:
    """Check that the audit log in FILES is as it was written; - is standard input.

    The rotated copies beside a file are read too, the oldest first. Exit code 1: a line was edited, removed,
    inserted, moved or torn, and no entry of the audit log itself explains it.
    """
    verified: list[_Verified] = []
    problems = _problems(files, set(heads), verified)
    printed = list(islice(problems, _MOST_PRINTED))
    serious, more = sum(not problem.explained for problem in printed), 0
    for problem in problems:
        more += 1
        serious += not problem.explained
    if output is Output.TABLE:
        _print(printed, more, verified, serious)
    else:
        document = {
            "intact": not serious,
            "records": [_log_document(name, each) for name, each in verified],
            "damages": [_problem_document(problem) for problem in printed],
            "more_damages": more,
        }
        print_document(document, output=output)
    if serious:
        sys.exit(Exit.PROBLEM)


def _problems(files: Sequence[str], heads: set[str], verified: list[_Verified]) -> Iterator[Problem]:
    """All problems in their order; a head that was not found comes last."""
    for log in [*([[None]] if "-" in files else []), *audit_logs(files)]:
        verification = Verification(heads=heads)
        verified.append((str(log[-1] or "-"), verification))
        for file in log:
            with _opened(file) as stream:
                yield from verification.read(str(file or "-"), stream)
        yield from verification.finish()
    for head in sorted(heads):
        sentence = f"{head}, noted elsewhere, is not in the chain: {_GONE}"
        yield Problem(ProblemKind.UNKNOWN_HEAD, None, sentence)


@contextmanager
def _opened(file: Path | None) -> Iterator[LineSource]:
    try:
        if file is None:
            yield sys.stdin.buffer
        else:
            with opened(file) as stream:
                yield WrittenFile(stream)
    except OSError as error:
        message = f"The audit log {printable(file or '-')} cannot be read: {error.strerror or error}."
        raise Misconfigured(message) from error


def _print(printed: Sequence[Problem], more: int, verified: Sequence[_Verified], serious: int) -> None:
    for problem in printed:
        click.echo(printable(problem))
    if more:
        click.echo(f"... and {more} more")
    for name, verification in verified:
        _print_log(name, verification)
    if serious:
        click.echo(f"Not intact: {counted(serious, 'place')} without an explanation in the audit log.")
    elif any(verification.lines for _, verification in verified):
        click.echo("Intact.")
    else:
        click.echo("Nothing to verify: no line is in the chain.")


def _print_log(name: str, verification: Verification) -> None:
    click.echo(printable(f"{name}: {counted(verification.lines, 'line')} in the chain"))
    if verification.before:
        click.echo(f"  {verification.before} from before the chain begins, which cannot be verified")
    if verification.foreign:
        click.echo(f"  {verification.foreign} of other programs in between")
    if verification.follows:
        click.echo(f"  begins after {printable(verification.follows)}, in a copy that is not here")
    for intent, place in islice(verification.open_intents.items(), _MOST_PRINTED):
        click.echo(printable(f"  no outcome yet: intent {intent}, {place}"))
    if last := verification.last:
        click.echo(printable(f"  head {last.digest} of {last.text('time')}: note it elsewhere"))


def _log_document(name: str, verification: Verification) -> dict[str, object]:
    last = verification.last
    return {
        "file": name,
        "lines": verification.lines,
        "before_the_chain": verification.before,
        "lines_of_others": verification.foreign,
        "follows": verification.follows,
        "head": last and {"digest": last.digest, "time": last.text("time"), "at": str(last.place)},
        "open_intents": [
            {"intent": intent, "at": str(place)} for intent, place in verification.open_intents.items()
        ],
    }


def _problem_document(problem: Problem) -> dict[str, object]:
    return {
        "file": problem.place and problem.place.file,
        "line": problem.place and problem.place.line,
        "kind": problem.kind,
        "sentence": problem.sentence,
        "explained": problem.explained,
    }
