"""`reaper audit`: read the record."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar, Unpack

import click
from click.shell_completion import CompletionItem

from reaper.audit.events import BRAKED, Event
from reaper.audit.reader import GROUPS, Inquiry, Torn, moment, open_intents, outcomes, read_events, summary
from reaper.cli.errors import Exit, Misconfigured
from reaper.cli.options import moment_option, output_option, record_files
from reaper.cli.output import Output, Row, print_document, print_table, show
from reaper.policy.plan import Result
from reaper.policy.selector import Glob
from reaper.policy.session import Identity, whose
from reaper.policy.text import plain

_QUESTIONS: Final = {
    "verify": "reaper.cli.verify",
    "reconcile": "reaper.cli.reconcile",
}


def _question(name: str) -> click.Command:
    found: click.Command = getattr(import_module(_QUESTIONS[name]), name)
    return found


class WithQuestions(click.Command):
    """A command that hands over to another when its first word names one; a file of that name: `./verify`."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 (click's signature)
    ) -> click.Context:
        """The context of the question, when there is one."""
        if args and args[0] in _QUESTIONS:
            question = _question(args[0])
            return question.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        """Answer the question, or show the rows."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Name the questions below the options."""
        with formatter.section("Questions of their own"):
            formatter.write_dl([(name, _question(name).get_short_help_str(80)) for name in _QUESTIONS])
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the questions beside the files."""
        offered = [CompletionItem(name) for name in _QUESTIONS if name.startswith(incomplete)]
        return [*offered, *super().shell_complete(ctx, incomplete)]


_MOST_TORN: Final = 10
"""So many unreadable lines of one file are named; of the rest only the number is told."""


def events_of(files: Iterable[str]) -> Iterator[Event]:
    """Every event of every file; what is none is told on standard error."""
    torn = Counter[str]()
    for file in files:
        try:
            for event in read_events(sys.stdin.buffer if file == "-" else Path(file)):
                if isinstance(event, Event):
                    yield event
                else:
                    torn[event.file] += 1
                    _tell(event, torn[event.file])
        except OSError as error:
            message = f"The record {plain(file)} cannot be read: {error.strerror or error}."
            raise Misconfigured(message) from error
    for name, count in torn.items():
        if count > _MOST_TORN:
            click.echo(f"{plain(name)}: {count - _MOST_TORN} more lines that are no events", err=True)


def _tell(torn: Torn, number: int) -> None:
    if number <= _MOST_TORN:
        click.echo(plain(torn), err=True)


_GLOBS: Final = ("policy", "application", "role", "database", "server", "outcome", "mode")
_COLUMNS: Final = ("server", "policy", "mode", "pid", "role", "application", "client", "reason")
_NOTHING: Final = {"outcome": "No outcomes.", "intent": "No open intents."}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _filters(command: _Command) -> _Command:
    for key in reversed(_GLOBS):
        option = click.option(
            f"--{key}",
            multiple=True,
            metavar="GLOB",
            envvar=f"REAPER_AUDIT_{key.upper()}",
            show_envvar=True,
            help=f"Only this {key}; may be given several times.",
        )
        command = option(command)
    return command


class _Asked(TypedDict):
    files: tuple[str, ...]
    policy: tuple[str, ...]
    application: tuple[str, ...]
    role: tuple[str, ...]
    database: tuple[str, ...]
    server: tuple[str, ...]
    outcome: tuple[str, ...]
    mode: tuple[str, ...]
    pid: tuple[int, ...]
    since: datetime | None
    until: datetime | None
    by: str | None
    open_: bool
    output: Output


@click.command(cls=WithQuestions)
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=record_files)
@_filters
@click.option(
    "--pid",
    multiple=True,
    type=int,
    envvar="REAPER_AUDIT_PID",
    show_envvar=True,
    help="Only sessions with this pid; may be given several times.",
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
    "--until",
    metavar="TIME|DURATION",
    callback=moment_option,
    envvar="REAPER_AUDIT_UNTIL",
    show_envvar=True,
    help="Before this time.",
)
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    envvar="REAPER_AUDIT_BY",
    show_envvar=True,
    help="Count the outcomes for each of these.",
)
@click.option(
    "--open",
    "open_",
    is_flag=True,
    envvar="REAPER_AUDIT_OPEN",
    show_envvar=True,
    help="Intents without an outcome; exit code 1 when there are any.",
)
@output_option
def audit(**asked: Unpack[_Asked]) -> None:
    """Read the record in FILES, plain or gzipped, - for standard input: who was terminated, when and why.

    Without FILES the file is read that REAPER_AUDIT_LOG names.
    """
    inquiry = _inquiry(asked)
    events = events_of(asked["files"])
    if asked["open_"]:
        _show_open(filter(inquiry.wants, open_intents(events)), asked["output"])
        return
    brakes: list[Event] = []
    found = filter(inquiry.wants, outcomes(_noting(brakes, events)))
    if by := asked["by"]:
        show(summary(found, by), output=asked["output"], empty="No outcomes.")
    else:
        _show(list(found), "outcome", asked["output"])
    if asked["output"] is Output.TABLE:
        _tell_brakes(list(filter(inquiry.wants, brakes)))


def _noting(brakes: list[Event], events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if event.name == BRAKED:
            brakes.append(event)
        yield event


def _tell_brakes(brakes: Sequence[Event]) -> None:
    """Why nothing was done: whoever asks what became of sessions asks that too."""
    for policy in dict.fromkeys(event.text("policy") for event in brakes):
        last = [event for event in brakes if event.text("policy") == policy][-1]
        said = f"{policy}: {last.text('reason')}, last at {last.time:%Y-%m-%dT%H:%M:%SZ}"
        click.echo(plain(said))


_WORDS: Final[Mapping[str, Sequence[str]]] = {"outcome": tuple(Result), "mode": ("enforce", "dry-run")}


def _known(key: str, texts: Sequence[str]) -> None:
    """Refuse a pattern that fits no word there is: nothing found would look like nothing happened."""
    for text in texts:
        if not any(Glob(text).matches(word) for word in _WORDS[key]):
            message = f"--{key} {plain(text)}: there is no such {key}; the words are {', '.join(_WORDS[key])}"
            raise Misconfigured(message)


def _inquiry(asked: _Asked) -> Inquiry:
    given: dict[str, tuple[str, ...]] = {
        "policy": asked["policy"],
        "application": asked["application"],
        "role": asked["role"],
        "database": asked["database"],
        "server": asked["server"],
        "outcome": asked["outcome"],
        "mode": asked["mode"],
    }
    for key in _WORDS:
        _known(key, given[key])
    return Inquiry(
        globs={key: tuple(map(Glob, texts)) for key, texts in given.items()},
        pids=frozenset(asked["pid"]),
        since=asked["since"],
        until=asked["until"],
    )


def _show_open(intents: Iterable[Event], output: Output) -> None:
    found = list(intents)
    _show(found, "intent", output)
    if found:
        sys.exit(Exit.NO)


def _show(events: Sequence[Event], last: str, output: Output) -> None:
    if output is Output.TABLE:
        several = len({event.text("server") for event in events}) > 1
        print_table([_line(event, last, several_servers=several) for event in events], empty=_NOTHING[last])
    else:
        print_document([_row(event, last) for event in events], output=output)


def _row(event: Event, last: str) -> Row:
    fields = {column: event.fields.get(column) for column in (*_COLUMNS, last)}
    return {"time": moment(event.time), **fields}


def _line(event: Event, last: str, *, several_servers: bool) -> Row:
    """What people want to see of an event; the documents hold the rest."""
    return {
        # Without its fraction, and still in a spelling that --since understands.
        "time": f"{event.time:%Y-%m-%dT%H:%M:%SZ}",
        **({"server": event.text("server")} if several_servers else {}),
        **({"outcome": event.text("outcome")} if last == "outcome" else {}),
        "policy": event.text("policy"),
        "pid": event.fields.get("pid"),
        "session": whose(Identity(*map(event.text, Identity._fields))),
        "reason": event.text("reason"),
    }
