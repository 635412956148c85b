"""The command `reaper`. A command's module is imported when it is used: help and completion stay fast."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem, get_completion_class

from reaper import __version__
from reaper.cli.errors import Exit


@contextmanager
def exit_on_broken_pipe() -> Iterator[None]:
    """Exit as a program that SIGPIPE has ended; the signal itself could arrive between intent and act."""
    try:
        yield
    except BrokenPipeError:
        sys.exit(Exit.BROKEN_PIPE)


def exit_on_early_signals() -> None:
    """Exit at once, with code 0, on a stop signal that arrives while a service is still being imported.

    Without unwinding: an exception raised inside an import could be lost there.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(Exit.FINE))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # no policy file has been read yet


class _Command(NamedTuple):
    module: str
    summary: str
    service: bool = False


_GROUPS: Final = {
    "Look": {
        "usage": _Command("reaper.cli.usage", "Show which sessions hold the slots, even if none is free."),
        "advise": _Command("reaper.cli.advise", "Report what is wrong with the connections, and the fixes."),
        "snapshot": _Command("reaper.cli.snapshot", "Save a snapshot of a server, to plan elsewhere."),
        "history": _Command("reaper.cli.history", "Record a history of sessions in files."),
    },
    "Decide": {
        "check": _Command("reaper.cli.check", "Check the policy file, and the rights on a server."),
        "plan": _Command("reaper.cli.plan", "Show what would be terminated now, and why not the rest."),
        "explain": _Command("reaper.cli.explain", "Explain every policy's decision for one session."),
        "assess": _Command("reaper.cli.assess", "Assess whether dry-run policies are safe to enforce."),
        "backtest": _Command("reaper.cli.backtest", "Show what policies would have done, on a history."),
        "schema": _Command("reaper.cli.app", "Print the JSON Schema of the policy file."),
    },
    "Run": {
        "run": _Command("reaper.cli.run", "Run the service: watch servers, apply policies.", service=True),
        "once": _Command("reaper.cli.once", "Run one cycle and end, for cron and CI."),
        "demo": _Command("reaper.cli.demo", "Watch the reaper work on a PostgreSQL of its own."),
    },
    "Audit": {
        "audit": _Command("reaper.cli.audit", "Read the audit log: what was terminated, when and why."),
    },
    "Help": {
        "help": _Command("reaper.cli.help", "Show a reference page."),
        "completion": _Command("reaper.cli.app", "Print the completion script for SHELL."),
    },
}
_WIDTH: Final = 10
_COMMANDS: Final = {name: about for group in _GROUPS.values() for name, about in group.items()}


class _Commands(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names in the order of first use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, or None."""
        known = _COMMANDS.get(cmd_name)
        if known is None:
            return None
        if known.service:
            exit_on_early_signals()
        command: click.Command = getattr(import_module(known.module), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing any of them."""
        for title, commands in _GROUPS.items():
            with formatter.section(title):
                # Aligned over all groups.
                formatter.write_dl(
                    [(name.ljust(_WIDTH), command.summary) for name, command in commands.items()]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; the error for an unknown one proposes a similar name."""
        # Click itself proposes only commands that are loaded.
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option."""
        names = (name for name in _COMMANDS if name.startswith(incomplete))
        commands = [CompletionItem(name, help=_COMMANDS[name].summary) for name in names]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 (click's signature)
    ) -> click.Context:
        """Parse the command line; help and version are printed here."""
        with exit_on_broken_pipe():  # click itself would exit with 1, which means "a problem was found"
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with exit_on_broken_pipe():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 usage or configuration, "
    "3 the server cannot be reached or refuses, 70 a defect.",
)
@click.version_option(__version__, "-V", "--version", prog_name="reaper")
def reaper() -> None:
    """Terminate idle PostgreSQL sessions by policy: guarded, logged, and tried in a dry run first."""


@click.command
def schema() -> None:
    """Print the JSON Schema of the policy file, for editors and CI."""
    from reaper.config.model import json_schema  # noqa: PLC0415 (help and completion do without pydantic)

    click.echo(json.dumps(json_schema(), indent=2))


@click.command
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: reaper completion bash > /etc/bash_completion.d/reaper
    zsh:  reaper completion zsh > "${fpath[1]}/_reaper"
    fish: reaper completion fish > ~/.config/fish/completions/reaper.fish
    """  # noqa: D301 (click's mark for lines that stay as they are)
    known = get_completion_class(shell)
    if known:
        click.echo(known(ctx.find_root().command, {}, "reaper", "_REAPER_COMPLETE").source())
