"""`reaper help`: the reference pages, on the terminal."""

from importlib.resources import files
from typing import Final

import click
from rich.markdown import Markdown

from reaper.cli.output import console

_PAGES: Final = {page.name.removesuffix(".md"): page for page in (files("reaper") / "help").iterdir()}


@click.command
@click.argument("topic", type=click.Choice(sorted(_PAGES)), required=False)
def help(topic: str | None) -> None:  # noqa: A001 (the command's name)
    """Show a reference page; without TOPIC their list."""
    if topic is not None:
        console().print(Markdown(_PAGES[topic].read_text(encoding="utf-8")))
        return
    for name, page in sorted(_PAGES.items()):
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        click.echo(f"{name:14}{title}")
