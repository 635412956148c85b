"""`reaper usage`: which clients hold the slots, once or repeatedly."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import click
from rich.live import Live
from rich.text import Text

from reaper.cli.errors import Misconfigured, ProblemFound, ServerTrouble
from reaper.cli.options import (
    GroupedCommand,
    config_option,
    dsn_option,
    output_option,
    server_option,
    url_option,
)
from reaper.cli.output import Output, console, print_document
from reaper.cli.service_client import ServiceClient
from reaper.cli.snapshot import from_local_service, read_snapshot, snapshot_option
from reaper.cli.targets import pick_server, read_settings
from reaper.cli.usage_view import Screen, ShownUsage
from reaper.config import Server
from reaper.config.errors import BadValue
from reaper.config.values import share
from reaper.insight.usage.census import census, shortened
from reaper.insight.usage.trend import Trends
from reaper.policy.text import as_document, percent, printable
from reaper.postgres.errors import ServerError
from reaper.service.connection import OpenConnection, RunOptions, open_to_observe

_TOP: Final = 8
_MAX_TOP: Final = 1_000

Source = Callable[[], Awaitable[ShownUsage]]
"""Returns the usage at this moment, or raises ServerTrouble."""


def _share_option(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Parse a share as the policy file spells it."""
    try:
        return None if text is None else share(text)
    except BadValue as bad:
        raise click.BadParameter(str(bad)) from None


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@output_option
@url_option
@snapshot_option("Show")
@click.option(
    "--top",
    type=click.IntRange(1, _MAX_TOP),
    default=_TOP,
    show_default=True,
    help="The number of applications, clients, roles and databases to show.",
)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 3_600),
    default=2.0,
    show_default=True,
    help="With --watch, seconds between two refreshes.",
)
@click.option(
    "--fail-above",
    metavar="SHARE",
    callback=_share_option,
    help="Exit with 1 if more than this share of the usable slots is used, such as 80%; for cron.",
)
def usage(  # noqa: PLR0913 (click passes every option by name)
    *,
    config: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    url: str | None,
    snapshot: Path | None,
    top: int,
    watch: bool,
    every: float,
    fail_above: float | None,
) -> None:
    """Show which sessions hold the slots: slots, states, applications, clients, roles, open transactions.

    Terminates nothing and takes one slot. If the server refuses new connections, a service running on this
    host (REAPER_LISTEN, or 127.0.0.1:9432) is used instead. The policy file is needed only if it names the
    servers.
    """
    stack = AsyncExitStack()
    if snapshot:
        source = _saved(snapshot, top)
    elif url:
        source = _served(ServiceClient(url), server, top)
    else:
        settings = read_settings(config) if config.exists() else None
        source = _LiveUsage(pick_server(settings, dsn, server), top, stack).usage
    if fail_above is not None and watch:
        message = "--fail-above needs one answer: leave --watch out"
        raise click.UsageError(message)
    with suppress(KeyboardInterrupt):
        shown = asyncio.run(_show(source, output, every if watch else None, stack))
        if shown and fail_above is not None:
            if shown.usage is None:
                message = "--fail-above needs one server\nhint: choose one with --server NAME"
                raise Misconfigured(message)
            used = shown.usage.census.openings.share
            if used > fail_above:
                message = f"{percent(used)} of the usable slots are used, more than {percent(fail_above)}"
                raise ProblemFound(message)


def _saved(path: Path, top: int) -> Source:
    shown = ShownUsage(usage=Trends().usage(census(read_snapshot(path), top=top), 0.0))

    async def usage() -> ShownUsage:
        return shown

    return usage


def _served(client: ServiceClient, server: str | None, top: int) -> Source:
    async def usage() -> ShownUsage:
        return await asyncio.to_thread(_from_service, client, server=server, top=top)

    return usage


def _from_service(
    client: ServiceClient, *, server: str | None, top: int, why: str | None = None
) -> ShownUsage:
    overview = client.usage(server)
    seen = overview.shown.usage if overview.shown else None
    seen = seen and replace(seen, census=shortened(seen.census, top=top))
    return ShownUsage(usage=seen, service=overview, url=client.base, why=why)


class _LiveUsage:
    """The usage of a server over one connection, or else of a service that is connected already."""

    def __init__(self, server: Server, top: int, stack: AsyncExitStack) -> None:
        self._server = server
        self._top = top
        self._stack = stack
        self._trends = Trends()
        self._at: OpenConnection | None = None

    async def usage(self) -> ShownUsage:
        """Return the usage now; connect first if there is no connection."""
        try:
            if self._at is None:
                connecting = open_to_observe(self._server, RunOptions(dry_run=True))
                self._at = await self._stack.enter_async_context(connecting)
            counted = census(await self._at.observer.all_sessions(), top=self._top)
        except ServerError as error:
            self._at = None
            await self._stack.aclose()
            why = str(error)
            ask = partial(_from_service, server=self._server.name, top=self._top, why=why)
            return await asyncio.to_thread(from_local_service, self._server.name, error, "usage", ask)
        now = time.monotonic()
        self._trends.note(counted, now)
        return ShownUsage(usage=self._trends.usage(counted, now))


async def _show(
    source: Source, form: Output, every: float | None, stack: AsyncExitStack
) -> ShownUsage | None:
    # Left to the end of the event loop, closing the connection would race with the loop's own cleanup.
    async with stack:
        return await (_once(source, form) if every is None else _watch(source, form, every))


async def _once(source: Source, form: Output) -> ShownUsage:
    shown = await source()
    if form is Output.TABLE:
        console().print(Screen(shown))
    else:
        print_document(_document(shown), output=form)
    return shown


async def _watch(source: Source, form: Output, every: float) -> NoReturn:
    screen = console()
    if form is Output.TABLE and screen.is_terminal:
        with Live(console=screen, screen=True, auto_refresh=False) as drawing:
            while True:
                drawing.update(await _screen(source), refresh=True)
                await asyncio.sleep(every)
    while True:
        shown = await source()
        if form is Output.TABLE:
            screen.print(Screen(shown))
            screen.print()
        else:
            click.echo(json.dumps(_document(shown)))
        await asyncio.sleep(every)


async def _screen(source: Source) -> Screen | Text:
    """The screen, or the error: the next refresh tries again."""
    try:
        return Screen(await source())
    except ServerTrouble as trouble:
        return Text("\n".join(map(printable, trouble.format_message().split("\n"))))


def _document(shown: ShownUsage) -> object:
    source = {"url": shown.url, "because": shown.why} if shown.service else None
    return {"service": source, "usage": as_document(shown.usage), "reaper": as_document(shown.service)}
