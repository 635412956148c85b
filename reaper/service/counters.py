"""Logs the server's own count of terminations: when leading begins and ends, and once a day."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from reaper.audit.ledger import Author, Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.config import Server
from reaper.policy.time import isoformat
from reaper.postgres.connection import Connection
from reaper.postgres.errors import ServerError
from reaper.postgres.watcher import Counters, read_counters

_DAY: Final = 86_400


async def read_count(server: Server) -> Mapping[str, object]:
    """Return the present count of a server, as the fields of `server.counters`; raises ServerError."""
    connection = await Connection.open(server.dsn)
    try:
        counters = await read_counters(connection)
    finally:
        await connection.close()
    if counters is None:
        message = "its counters cannot be read"
        raise ServerError(message)
    return {"server": server.name, **_fields(counters)}


class CounterLog:
    """Logs the count of one server while one connection lasts."""

    def __init__(self, connection: Connection, author: Author, ledger: Ledger) -> None:
        self._connection = connection
        self._author = author
        self._ledger = ledger
        self._logged_at = time.monotonic()

    async def log(self) -> None:
        """Log the count, unless every policy is a dry run; raises Lost."""
        if self._author.dry_run:
            return
        # Before the statement: a server on which it fails is not queried at every cycle.
        self._logged_at = time.monotonic()
        if counters := await read_counters(self._connection):
            # The next cycle that terminates a session meets the same failure, and reports it.
            with suppress(AuditLogFailed):
                self._ledger.log_counters(self._author, _fields(counters))

    async def log_last(self) -> None:
        """Log the count before the connection is closed; nothing if it is lost already."""
        with suppress(ServerError):
            await self.log()

    async def log_daily(self) -> None:
        """Log the count if the last time was a day ago."""
        if time.monotonic() - self._logged_at >= _DAY:
            await self.log()


def _fields(counters: Counters) -> dict[str, object]:
    return {
        "server_time": isoformat(counters.at),
        "server_started": isoformat(counters.started),
        "databases": counters.databases,
        "terminations": counters.terminations,
        "counters_reset": isoformat(counters.reset),
    }
