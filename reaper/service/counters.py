"""The server's own count of terminations, noted in the record: when leading begins and ends, and daily."""

import time
from contextlib import suppress
from typing import Final

from reaper.audit.ledger import Author, Ledger, Tallied
from reaper.audit.sinks import AuditLogFailed
from reaper.config import Server
from reaper.postgres.connection import Connection
from reaper.postgres.errors import ServerError
from reaper.postgres.watcher import Counters, read_counters

_DAILY: Final = 86_400


async def count_at(server: Server) -> Counters:
    """Ask a server what it has counted by now, and nothing else."""
    link = await Connection.open(server.dsn)
    try:
        counters = await read_counters(link)
    finally:
        await link.close()
    if counters is None:
        message = "it does not tell what it has counted"
        raise ServerError(message)
    return counters


class Account:
    """The count of one server, for as long as one connection lasts."""

    def __init__(self, link: Connection, author: Author, ledger: Ledger) -> None:
        self._link = link
        self._author = author
        self._ledger = ledger
        self._noted = time.monotonic()

    async def note(self) -> None:
        """Note it now, unless nothing but rehearsals can happen; raises Lost."""
        if self._author.dry_run:
            return
        self._noted = time.monotonic()
        counters = await read_counters(self._link)
        if counters is None:
            return
        tallied = Tallied(
            at=counters.at,
            started=counters.started,
            databases=counters.databases,
            terminations=counters.terminations,
            reset=counters.reset,
        )
        # The cycle that wants to act finds out as well, and tells.
        with suppress(AuditLogFailed):
            self._ledger.tallied(self._author, tallied)

    async def note_last(self) -> None:
        """Note it before the connection is given up; one that is lost by then has nothing to say."""
        with suppress(ServerError):
            await self.note()

    async def note_daily(self) -> None:
        """Note it when the last time is a day ago."""
        if time.monotonic() - self._noted >= _DAILY:
            await self.note()
