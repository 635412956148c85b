"""`reaper`: each command is imported when it is typed, so that help and completion answer at once."""

from importlib import import_module
from typing import Any, Final

import click

from reaper import __version__
from reaper.cli.unread import ending_unread

_COMMANDS: Final = {
    "run": "reaper.cli.run",
    "once": "reaper.cli.once",
    "plan": "reaper.cli.plan",
    "explain": "reaper.cli.explain",
    "check": "reaper.cli.check",
    "snapshot": "reaper.cli.snapshot",
    "audit": "reaper.cli.audit",
    "schema": "reaper.cli.schema",
    "demo": "reaper.cli.demo",
    "completion": "reaper.cli.completion",
}


class _Commands(click.Group):
    """Loads a command from its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """In the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, if there is one."""
        module = _COMMANDS.get(cmd_name)
        return None if module is None else getattr(import_module(module), cmd_name)

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
