"""Options that several commands share."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
from click.core import ParameterSource

from reaper.cli.errors import Misconfigured
from reaper.cli.output import Output
from reaper.history.aliases import Aliases
from reaper.history.write import HistoryFolder, HistoryLimits, HistoryOptions
from reaper.policy.time import SECOND, Duration, exact_words, parse_duration, parse_time

USUAL_ADDRESS: Final = "127.0.0.1:9432"
"""Where a service listens, and where a command looks for it."""
SOURCE: Final = "Policies and servers"
AUDIT: Final = "Audit log"
_OUTPUT: Final = "Output"


def moment_option(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """Parse an ISO time, or a duration back from now."""
    if text is None:
        return None
    if time := parse_time(text):
        return time
    try:
        return datetime.now(UTC) - timedelta(microseconds=parse_duration(text))
    except (ValueError, OverflowError):
        message = f"{text!r} is no time; write 2026-01-31T23:59Z, or 2h for two hours ago."
        raise click.BadParameter(message) from None


def audit_log_files(
    context: click.Context, parameter: click.Parameter, files: tuple[str, ...]
) -> tuple[str, ...]:
    """The files to read. In the environment, `-` means the stdout of `reaper run` and is left out."""
    from_environment = context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT
    found = tuple(file for file in files if not (from_environment and file == "-"))
    if not found:
        message = "No audit log was named. Name its file, or set REAPER_AUDIT_LOG."
        raise click.UsageError(message)
    return found


Command = TypeVar("Command", bound=Callable[..., Any])


class _GroupedOption(click.Option):
    """An option under a heading of the help."""

    def __init__(self, *args: Any, group: str, **about: Any) -> None:  # noqa: ANN401 (click's signature)
        super().__init__(*args, **about)
        self.group = group


class GroupedCommand(click.Command):
    """A command that lists its options in groups in the help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the command's own options first, then each group."""
        groups = dict[str, list[tuple[str, str]]]({"Options": []})
        for parameter in self.get_params(ctx):
            if row := parameter.get_help_record(ctx):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(row)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def grouped_option(group: str, *names: str, **about: Any) -> Callable[[Command], Command]:  # noqa: ANN401
    """Return an option under this heading."""
    return click.option(*names, cls=_GroupedOption, group=group, **about)


def env_option(group: str, *names: str, **about: Any) -> Callable[[Command], Command]:  # noqa: ANN401
    """Return an option that the environment can set: `--audit-log` by REAPER_AUDIT_LOG."""
    name = next(name for name in names if name.startswith("--"))
    variable = f"REAPER_{name.removeprefix('--').replace('-', '_').upper()}"
    return grouped_option(group, *names, envvar=variable, show_envvar=True, **about)


def config_option(command: Command) -> Command:
    """`--config FILE`."""
    return env_option(
        SOURCE,
        "--config",
        "-c",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("policies.yaml"),
        show_default=True,
        help="The policy file.",
    )(command)


def dsn_option(command: Command) -> Command:
    """`--dsn DSN`."""
    return env_option(
        SOURCE,
        "--dsn",
        metavar="DSN",
        help="The server, when the policy file names none; without it libpq's PG* variables. "
        "Keep a password in a passfile, a service file or the environment.",
    )(command)


def server_option(command: Command) -> Command:
    """`--server NAME`."""
    return env_option(SOURCE, "--server", metavar="NAME", help="Which server of the policy file.")(command)


def output_option(command: Command) -> Command:
    """`--output table|json|yaml`, or `--json`."""
    output = grouped_option(
        _OUTPUT,
        "--output",
        "-o",
        type=click.Choice(Output, case_sensitive=False),
        default=Output.TABLE.value,
        show_default=True,
        callback=lambda context, _, value: Output.JSON if context.meta.get(_OUTPUT) else value,
        help="A table for people, JSON and YAML for programs.",
    )
    # Eager: it is processed first, whatever the order on the command line.
    shorthand = grouped_option(
        _OUTPUT,
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, value: context.meta.update({_OUTPUT: value}),
        help="The same as --output json.",
    )
    return output(shorthand(command))


def url_option(command: Command) -> Command:
    """`--url URL`."""
    return grouped_option(
        SOURCE,
        "--url",
        metavar="URL",
        help=f"Ask a running service instead of the server, as in http://{USUAL_ADDRESS}; it is connected "
        "even if all slots are in use.",
    )(command)


def acting_options(command: Command) -> Command:
    """Options that `run` and `once` share."""
    for option in reversed(_ACTING):
        command = option(command)
    return command


def log_options(command: Command) -> Command:
    """`--log-format` and `--log-level`."""
    for option in reversed(_LOG):
        command = option(command)
    return command


_LOG: tuple[Callable[[Any], Any], ...] = (
    env_option(
        "Log",
        "--log-format",
        type=click.Choice(("auto", "human", "json")),
        default="auto",
        show_default=True,
        help="The log on stderr: for people on a terminal, JSON elsewhere.",
    ),
    env_option(
        "Log",
        "--log-level",
        type=click.Choice(("debug", "info", "warning", "error")),
        default="info",
        show_default=True,
        help="Lowest level that is logged. The audit log is always complete.",
    ),
)

_ACTING: tuple[Callable[[Any], Any], ...] = (
    config_option,
    dsn_option,
    server_option,
    env_option(
        SOURCE,
        "--dry-run",
        is_flag=True,
        help="Run every policy as a dry run, whatever its mode is: same decisions, no session is touched.",
    ),
    env_option(
        AUDIT,
        "--audit-log",
        multiple=True,
        metavar="FILE",
        default=("-",),
        show_default="stdout",
        help="Where the audit log is written; `-` is stdout. May be given several times (in the environment, "
        "separated by spaces).",
    ),
    env_option(
        AUDIT,
        "--with-query-text",
        is_flag=True,
        help="Log the last query of matched sessions, its literals replaced by `?`.",
    ),
    env_option(
        AUDIT,
        "--with-query-literals",
        is_flag=True,
        help="Log the last query unchanged: its literals may contain passwords and personal data.",
    ),
    *_LOG,
)


_SIZE: Final = re.compile(r"(?P<count>\d{1,9})(?P<unit>KiB|MiB|GiB|TiB)", re.ASCII)
_UNITS: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SHORTEST: Final = Duration(SECOND)
_LONGEST: Final = Duration(3_600 * SECOND)
_SMALLEST: Final = 2**20


class DurationType(click.ParamType[Duration]):
    """A duration as the policy file spells it, within bounds."""

    name = "duration"

    def __init__(self, shortest: Duration, longest: Duration | None = None) -> None:
        self._shortest = shortest
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Duration:  # noqa: ANN401
        """Read `90s`, `10m`, `1h30m`."""
        try:
            span = parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{error}; write it like 10s, 5m or 7d", param, ctx)
        if span < self._shortest or (self._longest is not None and span > self._longest):
            most = f" and at most {exact_words(self._longest)}" if self._longest else ""
            self.fail(f"{value}: write at least {exact_words(self._shortest)}{most}", param, ctx)
        return span


class _SizeType(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        found = _SIZE.fullmatch(str(value))
        size = int(found["count"]) * _UNITS[found["unit"]] if found else 0
        if size < _SMALLEST:
            self.fail(f"{value!r} is no size; write it like 512MiB or 4GiB, and at least 1MiB", param, ctx)
        return size


def history_options(prefix: str = "") -> Callable[[Command], Command]:
    """Return the options of a history: by themselves for `history`, behind `--history` for `run`.

    The command receives them as `history`; None when no history is recorded.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_history(**given: Any) -> Any:  # noqa: ANN401 (click's options)
            mine = {name: given.pop(f"history_{name}") for name in ("to", *_HISTORY)}
            return command(history=_history(**mine), **given)

        decorated: Any = with_history
        for name, about in reversed(list(_HISTORY.items())):
            variable = f"REAPER_HISTORY_{name.upper()}"
            option = grouped_option(
                "History", f"--{prefix}{name}", f"history_{name}", envvar=variable, show_envvar=True, **about
            )
            decorated = option(decorated)
        folder = env_option(
            "History",
            "--history" if prefix else "--to",
            "history_to",
            type=click.Path(path_type=Path, file_okay=False),
            required=not prefix,
            metavar="DIR",
            help="Record the sessions of every server in this folder, for `reaper backtest`.",
        )
        return cast("Command", folder(decorated))

    return decorate


_HISTORY: Final[Mapping[str, Mapping[str, Any]]] = {
    "every": {
        "type": DurationType(_SHORTEST, _LONGEST),
        "default": "10s",
        "show_default": True,
        "help": "How often all sessions are recorded.",
    },
    "keep": {
        "type": DurationType(Duration(60 * SECOND)),
        "default": "14d",
        "show_default": True,
        "help": "Delete files that are older than this.",
    },
    "most": {
        "type": _SizeType(),
        "default": "1GiB",
        "show_default": True,
        "help": "Size of all files of the folder; the oldest ones are deleted first.",
    },
    "anonymize": {
        "is_flag": True,
        "help": "Replace each word in the names of servers, databases, roles and applications, and each part "
        "of an address; globs and networks still fit.",
    },
}


def _history(
    *, to: Path | None, every: Duration, keep: Duration, most: int, anonymize: bool
) -> HistoryOptions | None:
    if to is None:
        return None
    folder = HistoryFolder(to, HistoryLimits(max_bytes=most, keep_for=keep))
    try:
        folder.prepare()
        aliases = Aliases(folder.secret()) if anonymize else None
    except OSError as error:
        message = f"the history {to} cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
    return HistoryOptions(folder=folder, every=every, aliases=aliases)
