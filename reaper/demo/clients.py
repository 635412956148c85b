"""The clients of the demo: applications with connections, described in clients.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final

import psycopg
import yaml
from psycopg import AsyncConnection

_QUERY: Final = "SELECT count(*) FROM orders"


@dataclass(kw_only=True)
class Client:
    """An application with its connections."""

    dsn: str
    application: str
    role: str
    habit: str
    connections: int = 1
    first_query: str = _QUERY
    check_query: str = _QUERY
    report: str = ""
    """What a passed check shows; the healthy clients have one."""
    opened: list[AsyncConnection] = field(default_factory=list)

    async def arrive(self) -> None:
        """Open all connections."""
        for _ in range(self.connections):
            await self.add_connection()

    async def add_connection(self) -> None:
        """Open one more connection and keep it."""
        self.opened.append(await self._connect())
        await self.opened[-1].execute(self.first_query.encode())

    async def visit(self) -> str | None:
        """Connect, query and disconnect; return the server's message if it refuses the connection."""
        try:
            async with await self._connect() as connection:
                await connection.execute(_QUERY)
        except psycopg.OperationalError as error:
            return server_message(error)
        return None

    async def run(self, query: str) -> list[object]:
        """Run a query on every connection; return the first value of each result."""
        cursors = [await connection.execute(query.encode()) for connection in self.opened]
        rows = [await cursor.fetchone() if cursor.description else None for cursor in cursors]
        return [row[0] if row else None for row in rows]

    async def check(self) -> tuple[bool, str]:
        """Return whether the check query works on every connection, and a report."""
        try:
            values = await self.run(self.check_query)
        except psycopg.Error as error:
            return False, server_message(error)
        return all(values), self.report.format(*values)

    async def close(self) -> None:
        """Close every connection, also those that the server has terminated."""
        for connection in self.opened:
            await connection.close()

    async def _connect(self) -> AsyncConnection:
        return await AsyncConnection.connect(
            self.dsn, user=self.role, application_name=self.application, autocommit=True
        )


def load_clients(dsn: str) -> Mapping[str, Client]:
    """Return the clients by application name."""
    text = files("reaper.demo").joinpath("clients.yaml").read_text(encoding="utf-8")
    return {name: Client(dsn=dsn, application=name, **each) for name, each in yaml.safe_load(text).items()}


def server_message(error: psycopg.Error) -> str:
    """Return the server's own message, such as `FATAL: sorry, too many clients already`."""
    if error.diag.message_primary:
        return f"{error.diag.severity}: {error.diag.message_primary}"
    # A refused connection has no error fields, only libpq's text around the server's message.
    line = str(error).splitlines()[0]
    _, severity, message = line.partition("FATAL:")
    return f"{severity} {message.strip()}" if severity else line
