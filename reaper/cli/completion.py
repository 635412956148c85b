"""`reaper completion SHELL`: what the shell needs to complete our commands."""

import click
from click.shell_completion import get_completion_class


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
