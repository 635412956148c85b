"""What can be asked of a record besides its rows: the first word behind `reaper audit` may name it."""

from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

_QUESTIONS: Final = {
    "verify": "reaper.cli.audit_verify",
    "reconcile": "reaper.cli.audit_reconcile",
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
