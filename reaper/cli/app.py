"""`reaper`: a command is loaded when it is typed, no sooner: help and completion answer at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from reaper import __version__
from reaper.cli.errors import Exit


@contextmanager
def ending_unread() -> Iterator[None]:
    """End as a program does that the broken pipe's signal has ended; that signal could come amid an act."""
    try:
        yield
    except BrokenPipeError:
        sys.exit(Exit.UNREAD)


def let_go() -> None:
    """Forget what nobody will read, or has no room: the interpreter would try once more, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def end_at_once_when_asked() -> None:
    """End as a service does that was asked to; left alone, a signal would end it with its own number.

    Without a word and without unwinding: an exception could come amid an import, and be lost there.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(Exit.FINE))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is to be read anew was not yet read


class _Command(NamedTuple):
    """Where a command lives, and what the list of commands says of it."""

    module: str
    says: str
    serves: bool = False
    """Whether it goes on until it is asked to end."""


_COMMANDS: Final = {
    "usage": _Command("reaper.cli.usage", "Show who holds the connections, also when all are taken."),
    "run": _Command("reaper.cli.run", "Watch the servers and carry the policies out.", serves=True),
    "once": _Command("reaper.cli.once", "Run one cycle and end, for cron and CI."),
    "plan": _Command("reaper.cli.plan", "Show what would be done now, and what spares the others."),
    "explain": _Command("reaper.cli.explain", "Explain every policy's answer for one session."),
    "check": _Command("reaper.cli.check", "Check the policy file, and whether a server lets us work."),
    "snapshot": _Command("reaper.cli.snapshot", "Save one look at a server, to judge it elsewhere."),
    "advise": _Command("reaper.cli.advise", "Say what is wrong with connections, and what would cure it."),
    "audit": _Command("reaper.cli.audit", "Read the record: who was terminated, when and why."),
    "assess": _Command("reaper.cli.assess", "Judge after a dry run whether a policy is safe to enforce."),
    "history": _Command("reaper.cli.history", "Record the sessions of servers, to try policies on them."),
    "backtest": _Command(
        "reaper.cli.backtest", "Report what policies would have done, on a recorded history."
    ),
    "schema": _Command("reaper.cli.schema", "Print the JSON Schema of the policy file."),
    "demo": _Command("reaper.cli.demo", "Watch the reaper at work on a PostgreSQL of its own."),
    "completion": _Command("reaper.cli.completion", "Print the completion script for SHELL."),
}


class _Commands(click.Group):
    """Loads a command from its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """In the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, if there is one."""
        known = _COMMANDS.get(cmd_name)
        if known is None:
            return None
        if known.serves:
            end_at_once_when_asked()
        command: click.Command = getattr(import_module(known.module), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands, without loading any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.says) for name, command in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option."""
        names = (name for name in _COMMANDS if name.startswith(incomplete))
        commands = [CompletionItem(name, help=_COMMANDS[name].says) for name in names]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 (click's signature)
    ) -> click.Context:
        """Read the command line; help and version are printed here."""
        with ending_unread():  # before click does, with 1, which is a no
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with ending_unread():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 fine, 1 the answer is no, 2 usage or configuration, "
    "3 the server cannot be reached or refuses.",
)
@click.version_option(__version__, "-V", "--version", prog_name="reaper")
def reaper() -> None:
    """Reap idle PostgreSQL connections by policy: guarded, recorded, and rehearsed first."""
