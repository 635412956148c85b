"""`reaper usage`: who holds the connections, now or as long as one watches."""

import asyncio
import json
import os
from pathlib import Path
from typing import Final

import click
from rich.live import Live as Drawing
from rich.text import Text

from reaper.cli.errors import Misconfigured, ServerTrouble
from reaper.cli.options import dsn_option, output_option, policies_option, server_option
from reaper.cli.output import Output, console, print_document
from reaper.cli.service_client import base_of
from reaper.cli.snapshot import read_snapshot
from reaper.cli.targets import pick_server, read_settings
from reaper.cli.usage_view import Live, Saved, Screen, Seen, Source, Told
from reaper.policy.json import as_document
from reaper.policy.text import plain

_USUAL: Final = "127.0.0.1:9432"
_TOP: Final = 8
_MOST: Final = 1_000


@click.command
@policies_option
@dsn_option
@server_option
@output_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="REAPER_JSON",
    show_envvar=True,
    help="The same as --output json.",
)
@click.option(
    "--url",
    metavar="URL",
    envvar="REAPER_URL",
    show_envvar=True,
    help="Ask the reaper that runs there, as at http://127.0.0.1:9432: it is inside when the slots are full.",
)
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    envvar="REAPER_SNAPSHOT",
    show_envvar=True,
    help="Look into a saved snapshot, with no server; `-` is stdin.",
)
@click.option(
    "--top",
    type=click.IntRange(1, _MOST),
    default=_TOP,
    show_default=True,
    envvar="REAPER_TOP",
    show_envvar=True,
    help="So many applications, clients, roles and databases.",
)
@click.option(
    "--watch",
    is_flag=True,
    envvar="REAPER_WATCH",
    show_envvar=True,
    help="Look again and again, until Ctrl-C.",
)
@click.option(
    "--every",
    type=click.FloatRange(0.5, 3_600),
    default=2.0,
    show_default=True,
    envvar="REAPER_EVERY",
    show_envvar=True,
    help="With --watch, seconds between two looks.",
)
def usage(  # noqa: PLR0913 (click hands every option over by name)
    *,
    policies: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    as_json: bool,
    url: str | None,
    snapshot: Path | None,
    top: int,
    watch: bool,
    every: float,
) -> None:
    """Show who holds the connections: slots, states, applications, clients, roles, open transactions.

    Touches nobody and takes one slot. When the server lets nobody in, a reaper that runs on this host
    (REAPER_LISTEN, or 127.0.0.1:9432) is asked in its place. The policy file is needed only when it names
    the servers.
    """
    source = _source(policies, dsn=dsn, server=server, url=url, snapshot=snapshot, top=top)
    form = Output.JSON if as_json else output
    try:
        asyncio.run(_watch(source, form, every) if watch else _once(source, form))
    except KeyboardInterrupt:
        return


def _source(
    policies: Path,
    *,
    dsn: str | None,
    server: str | None,
    url: str | None,
    snapshot: Path | None,
    top: int,
) -> Source:
    if snapshot:
        return Saved(read_snapshot(snapshot), top=top)
    if url:
        base = base_of(url)
        if base is None:
            message = f"--url {url}: write http://HOST:PORT, as in http://{_USUAL}"
            raise Misconfigured(message)
        return Told(base, server=server, top=top)
    settings = read_settings(policies) if policies.exists() else None
    listen = os.environ.get("REAPER_LISTEN") or _USUAL
    reaper = None if listen == "off" else base_of(listen)
    return Live(pick_server(settings, dsn, server), top=top, reaper=reaper)


async def _once(source: Source, form: Output) -> None:
    try:
        seen = await source.look()
    finally:
        await source.close()
    if form is Output.TABLE:
        console().print(Screen(seen))
    else:
        print_document(_document(seen), output=form)


async def _watch(source: Source, form: Output, every: float) -> None:
    """Again and again; whatever goes wrong meanwhile is told, and tried again."""
    screen = console()
    try:
        if form is Output.TABLE and screen.is_terminal:
            with Drawing(console=screen, screen=True, auto_refresh=False) as drawing:
                while True:
                    drawing.update(await _tried(source), refresh=True)
                    await asyncio.sleep(every)
        while True:
            seen = await source.look()
            if form is Output.TABLE:
                screen.print(Screen(seen))
                screen.print()
            else:
                click.echo(json.dumps(_document(seen)))
            await asyncio.sleep(every)
    finally:
        await source.close()


async def _tried(source: Source) -> Screen | Text:
    try:
        return Screen(await source.look())
    except ServerTrouble as trouble:
        return Text("\n".join(map(plain, trouble.format_message().split("\n"))))


def _document(seen: Seen) -> object:
    told = {"url": seen.url, "instead_because": seen.why} if seen.reaper else None
    return {"told_by": told, "usage": as_document(seen.usage), "reaper": as_document(seen.reaper)}
