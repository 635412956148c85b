"""`reaper audit`: read the audit log."""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem
from rich.console import JustifyMethod

from reaper.audit.events import SAFETY_LIMIT, Event
from reaper.audit.reader import (
    GROUPS,
    files_of_audit_logs,
    format_time,
    open_intents,
    outcomes,
    read_events,
    summary,
)
from reaper.cli.errors import Exit, Misconfigured
from reaper.cli.options import Command, GroupedCommand, audit_log_files, moment_option, output_option
from reaper.cli.output import Cells, Output, Row, print_document, print_groups, print_table, show
from reaper.policy.plan import Result
from reaper.policy.selector import Glob
from reaper.policy.session import Identity, session_words
from reaper.policy.text import printable

_SUBCOMMANDS: Final = {"verify": "reaper.cli.verify", "reconcile": "reaper.cli.reconcile"}
_GLOBS: Final = ("policy", "application", "role", "database", "server", "outcome", "mode")
_COLUMNS: Final = ("server", "policy", "mode", "pid", "role", "application", "client", "reason")
_GROUP_COLUMNS: Final[Mapping[str, JustifyMethod]] = {
    "policy, application": "left",
    "sessions": "right",
    "outcome": "left",
    "last": "right",
}
_EMPTY: Final = {"outcome": "No outcomes.", "intent": "No open intents."}
_VALUES: Final[Mapping[str, Sequence[str]]] = {"outcome": tuple(Result), "mode": ("enforce", "dry-run")}
_MOST_BAD_LINES: Final = 10
"""Per file; the rest is counted."""


def _subcommand(name: str) -> click.Command:
    found: click.Command = getattr(import_module(_SUBCOMMANDS[name]), name)
    return found


class AuditCommand(GroupedCommand):
    """Runs a subcommand if the first word names one; a file of that name is `./verify`."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 (click's signature)
    ) -> click.Context:
        """The context of the subcommand, or of this command."""
        if args and args[0] in _SUBCOMMANDS:
            found = _subcommand(args[0])
            return found.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's signature)
        """Run the command of the context."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands below the options."""
        with formatter.section("Subcommands"):
            formatter.write_dl([(name, _subcommand(name).get_short_help_str(80)) for name in _SUBCOMMANDS])
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete subcommands beside files."""
        names = [CompletionItem(name) for name in _SUBCOMMANDS if name.startswith(incomplete)]
        return [*names, *super().shell_complete(ctx, incomplete)]


def _glob_options(command: Command) -> Command:
    for key in reversed(_GLOBS):
        about = f"Only this {key}; may be given several times."
        command = click.option(f"--{key}", multiple=True, metavar="GLOB", help=about)(command)
    return command


@click.command(cls=AuditCommand)
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=audit_log_files)
@_glob_options
@click.option(
    "--pid",
    multiple=True,
    type=int,
    help="Only sessions with this pid; may be given several times.",
)
@click.option(
    "--since",
    metavar="TIME|DURATION",
    callback=moment_option,
    help="From this time on: 2026-01-31T23:59Z (without an offset UTC), or 2h for two hours ago.",
)
@click.option(
    "--until",
    metavar="TIME|DURATION",
    callback=moment_option,
    help="Before this time.",
)
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    help="Count the outcomes for each of these.",
)
@click.option("--sessions", is_flag=True, help="Show one row for each session.")
@click.option(
    "--open",
    "open_",
    is_flag=True,
    help="Intents without an outcome; exit code 1 if there are any.",
)
@output_option
def audit(
    *,
    files: Sequence[str],
    by: str | None,
    sessions: bool,
    open_: bool,
    output: Output,
    **filters: Any,  # noqa: ANN401 (click's)
) -> None:
    """Read the audit log in FILES, plain or gzipped, - for standard input: terminated sessions, when and why.

    Without FILES, the file in REAPER_AUDIT_LOG is read.
    """
    selected = _event_filter(**filters)
    events = events_of(files)
    if open_:
        found = list(filter(selected, open_intents(events)))
        _show(found, "intent", output)
        if found:
            sys.exit(Exit.PROBLEM)
        return
    tripped: list[Event] = []
    found = list(filter(selected, outcomes(_noting_safety_limits(tripped, events))))
    if by:
        show(summary(found, by), output=output, empty=_EMPTY["outcome"])
    elif output is Output.TABLE and found and not sessions:
        print_groups(_GROUP_COLUMNS, _groups(found))
    else:
        _show(found, "outcome", output)
    if output is Output.TABLE:
        _print_safety_limits(list(filter(selected, tripped)))


def events_of(files: Iterable[str]) -> Iterator[Event]:
    """Every event of every file; other lines are reported on standard error."""
    bad = Counter[str]()
    for file in files:
        try:
            for event in read_events(sys.stdin.buffer if file == "-" else Path(file)):
                if isinstance(event, Event):
                    yield event
                    continue
                bad[event.place.file] += 1
                if bad[event.place.file] <= _MOST_BAD_LINES:
                    click.echo(printable(event), err=True)
        except OSError as error:
            message = f"The audit log {printable(file)} cannot be read: {error.strerror or error}."
            raise Misconfigured(message) from error
    for name, count in bad.items():
        if count > _MOST_BAD_LINES:
            click.echo(
                f"{printable(name)}: {count - _MOST_BAD_LINES} more lines that are no events", err=True
            )


def audit_logs(files: Iterable[str]) -> list[Sequence[Path]]:
    """The files of each audit log with their rotated copies, the oldest first, without standard input."""
    try:
        return files_of_audit_logs(Path(file) for file in files if file != "-")
    except OSError as error:
        message = f"The folder of the audit log cannot be read: {error.strerror or error}."
        raise Misconfigured(message) from error


def _event_filter(
    *, pid: Sequence[int], since: datetime | None, until: datetime | None, **globs: Sequence[str]
) -> Callable[[Event], bool]:
    """Return True for events that meet every condition; a condition on a missing field is not met."""
    for key, words in _VALUES.items():
        for text in globs[key]:
            # Without this check, a misspelt word would look as if nothing had happened.
            if not any(Glob(text).matches(word) for word in words):
                message = (
                    f"--{key} {printable(text)}: there is no such {key}; the words are {', '.join(words)}"
                )
                raise Misconfigured(message)
    patterns = {key: tuple(map(Glob, texts)) for key, texts in globs.items() if texts}

    def selected(event: Event) -> bool:
        return (
            (since is None or event.time >= since)
            and (until is None or event.time < until)
            and (not pid or event.fields.get("pid") in pid)
            and all(any(glob.matches(event.text(key)) for glob in given) for key, given in patterns.items())
        )

    return selected


def _noting_safety_limits(tripped: list[Event], events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if event.name == SAFETY_LIMIT:
            tripped.append(event)
        yield event


def _print_safety_limits(tripped: Sequence[Event]) -> None:
    """The policies that terminated nothing because of their safety limit: one line each, of the last time."""
    for policy in dict.fromkeys(event.text("policy") for event in tripped):
        last = [event for event in tripped if event.text("policy") == policy][-1]
        click.echo(printable(f"{policy}: {last.text('reason')}, last at {last.time:%Y-%m-%dT%H:%M:%SZ}"))


def _groups(events: Sequence[Event]) -> Iterator[tuple[Cells, Iterable[Cells]]]:
    """Yield each policy, and its applications with their outcomes."""
    policies = defaultdict[str, dict[tuple[str, str], list[Event]]](dict)
    for event in events:
        key = event.text("application") or "(unnamed)", event.text("outcome") or ""
        policies[event.text("policy") or ""].setdefault(key, []).append(event)
    for policy, groups in policies.items():
        ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
        rows = [_cells(application, outcome, group) for (application, outcome), group in ranked]
        yield _cells(policy, "", [event for group in groups.values() for event in group]), rows


def _cells(name: str, outcome: str, events: Sequence[Event]) -> Cells:
    last = max(event.time for event in events)
    return name, len(events), outcome, f"{last:%Y-%m-%dT%H:%M:%SZ}"


def _show(events: Sequence[Event], last: str, output: Output) -> None:
    if output is Output.TABLE:
        several = len({event.text("server") for event in events}) > 1
        rows = [_table_row(event, last, several_servers=several) for event in events]
        print_table(rows, empty=_EMPTY[last])
        return
    documents = [
        {"time": format_time(event.time), **{name: event.fields.get(name) for name in (*_COLUMNS, last)}}
        for event in events
    ]
    print_document(documents, output=output)


def _table_row(event: Event, last: str, *, several_servers: bool) -> Row:
    return {
        # Without its fraction, in a form that --since accepts.
        "time": f"{event.time:%Y-%m-%dT%H:%M:%SZ}",
        **({"server": event.text("server")} if several_servers else {}),
        **({"outcome": event.text("outcome")} if last == "outcome" else {}),
        "policy": event.text("policy"),
        "pid": event.fields.get("pid"),
        "session": session_words(Identity(*map(event.text, Identity._fields))),
        "reason": event.text("reason"),
    }
