"""Options that several commands share; each can also be given by environment variable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from reaper.cli.show import Output

Command = TypeVar("Command", bound=Callable[..., Any])


def policies_option(command: Command) -> Command:
    """`--policies FILE`."""
    return click.option(
        "--policies",
        "-p",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("policies.yaml"),
        show_default=True,
        envvar="REAPER_POLICIES",
        show_envvar=True,
        help="The policy file.",
    )(command)


def dsn_option(command: Command) -> Command:
    """`--dsn DSN`."""
    return click.option(
        "--dsn",
        metavar="DSN",
        envvar="REAPER_DSN",
        show_envvar=True,
        help="The server, when the policy file names none; without it libpq's PG* variables. "
        "A password belongs into a passfile, a service file or the environment.",
    )(command)


def server_option(command: Command) -> Command:
    """`--server NAME`."""
    return click.option(
        "--server",
        metavar="NAME",
        envvar="REAPER_SERVER",
        show_envvar=True,
        help="Which server of the policy file.",
    )(command)


def output_option(command: Command) -> Command:
    """`--output table|json|yaml`."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(Output, case_sensitive=False),
        default=Output.TABLE.value,
        show_default=True,
        envvar="REAPER_OUTPUT",
        show_envvar=True,
        help="A table for people, JSON and YAML for programs.",
    )(command)


def acting_options(command: Command) -> Command:
    """What `run` and `once` have in common."""
    for option in reversed(_ACTING):
        command = option(command)
    return command


def log_options(command: Command) -> Command:
    """`--log-format` and `--log-level`."""
    for option in reversed(_LOG):
        command = option(command)
    return command


_LOG: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--log-format",
        type=click.Choice(("auto", "human", "json")),
        default="auto",
        show_default=True,
        envvar="REAPER_LOG_FORMAT",
        show_envvar=True,
        help="The log on stderr: for people on a terminal, JSON elsewhere.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(("debug", "info", "warning", "error")),
        default="info",
        show_default=True,
        envvar="REAPER_LOG_LEVEL",
        show_envvar=True,
        help="What is worth a line in the log; the record is always whole.",
    ),
)

_ACTING: tuple[Callable[[Any], Any], ...] = (
    policies_option,
    dsn_option,
    server_option,
    click.option(
        "--dry-run",
        is_flag=True,
        envvar="REAPER_DRY_RUN",
        show_envvar=True,
        help="Rehearse every policy, whatever its mode says: same decisions, nobody is touched.",
    ),
    click.option(
        "--audit-log",
        multiple=True,
        metavar="FILE",
        default=("-",),
        show_default="stdout",
        envvar="REAPER_AUDIT_LOG",
        show_envvar=True,
        help="Where the record goes; `-` is stdout. May be given several times (in the environment with "
        "spaces between).",
    ),
    click.option(
        "--with-query-text",
        is_flag=True,
        envvar="REAPER_WITH_QUERY_TEXT",
        show_envvar=True,
        help="Record the last query of condemned sessions, its literals replaced by `?`.",
    ),
    click.option(
        "--with-query-literals",
        is_flag=True,
        envvar="REAPER_WITH_QUERY_LITERALS",
        show_envvar=True,
        help="Record the last query as it was: passwords and personal data may be among its literals.",
    ),
    *_LOG,
)
