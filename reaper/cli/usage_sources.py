"""Where `reaper usage` learns who holds the connections: the server, a reaper that runs, or a saved look."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from reaper.cli.exits import ServerTrouble
from reaper.cli.reaper_port import NoReaper
from reaper.cli.usage_help import nobody_gets_in
from reaper.cli.usage_reaper import ask_reaper
from reaper.config import Server
from reaper.policy.census import census, shortened
from reaper.policy.session import Snapshot
from reaper.policy.usage import Trends, Usage
from reaper.postgres.errors import ServerError
from reaper.postgres.preflight import refuse
from reaper.service.station import Manner, Opened, opened
from reaper.telemetry.views import Overview

_MISLEADING = {"pooler", "visibility", "version"}
"""Through a pooler or half blind, what we show would look true and be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen, and by whom when it was a reaper."""

    usage: Usage | None
    """Nothing when a reaper looks after several servers and none was named, or has not seen it yet."""
    reaper: Overview | None = None
    url: str | None = None
    why: str | None = None
    """Why a reaper was asked in the server's place."""


class Source(Protocol):
    """Shows who holds the connections, as often as one asks."""

    async def look(self) -> Seen:
        """Look now; ServerTrouble when nobody can tell."""

    async def close(self) -> None:
        """Give back what was held for looking again."""


class Saved:
    """A look in a file."""

    def __init__(self, snapshot: Snapshot, *, top: int) -> None:
        self._usage = Trends().usage(census(snapshot, top=top), 0.0)

    async def look(self) -> Seen:
        """The same each time."""
        return Seen(usage=self._usage)

    async def close(self) -> None:
        """There is nothing to give back."""


class Told:
    """A reaper that runs."""

    def __init__(self, url: str, *, server: str | None, top: int) -> None:
        self._url = url
        self._server = server
        self._top = top

    async def look(self) -> Seen:
        """Ask it."""
        try:
            overview = await asyncio.to_thread(ask_reaper, self._url, self._server)
        except NoReaper as nobody:
            raise ServerTrouble(str(nobody)) from None
        return Seen(usage=_shown(overview, self._top), reaper=overview, url=self._url)

    async def close(self) -> None:
        """There is nothing to give back."""


def _shown(overview: Overview, top: int) -> Usage | None:
    usage = overview.shown.usage if overview.shown else None
    return usage and replace(usage, census=shortened(usage.census, top=top))


class Live:
    """The server itself, over one connection that is held while somebody watches; else a reaper there."""

    def __init__(self, server: Server, *, top: int, reaper: str | None) -> None:
        self._server = server
        self._top = top
        self._reaper = reaper
        self._trends = Trends()
        self._connection = AsyncExitStack()
        self._at: Opened | None = None

    async def look(self) -> Seen:
        """Ask the server, or a reaper that is already inside."""
        try:
            return Seen(usage=await self._asked())
        except ServerError as error:
            await self.close()
            return await self._told(error)

    async def close(self) -> None:
        """Give the slot back."""
        self._at = None
        await self._connection.aclose()

    async def _asked(self) -> Usage:
        if self._at is None:
            connecting = opened(self._server, None, Manner(dry_run=True))
            self._at = await self._connection.enter_async_context(connecting)
            refuse(tuple(found for found in self._at.findings if found.check in _MISLEADING))
        counted = census(await self._at.observer.everybody(), top=self._top)
        now = time.monotonic()
        self._trends.note(counted, now)
        return self._trends.usage(counted, now)

    async def _told(self, error: ServerError) -> Seen:
        nobody: NoReaper | None = None
        if self._reaper:
            try:
                overview = await asyncio.to_thread(ask_reaper, self._reaper, self._server.name)
            except NoReaper as reason:
                nobody = reason
            else:
                usage = _shown(overview, self._top)
                return Seen(usage=usage, reaper=overview, url=self._reaper, why=str(error))
        raise ServerTrouble(nobody_gets_in(self._server.name, error, nobody)) from None
