"""How values of the server become ours: no byte that a client chose can fail a fetch."""

from typing import Final

from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from reaper.policy.spans import Instant

_POSTGRES_EPOCH: Final = 946_684_800_000_000


class TolerantText(Loader):
    """Text of whatever encoding: one invalid byte in one name must not blind us to everybody."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        """Decode as UTF-8, and show every byte that is none by its number."""
        return bytes(data).decode("utf-8", "backslashreplace")


class ExactInstant(Loader):
    """timestamptz as the integer that it is on the wire: exact, cheap, and infinity is just very far."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Instant:
        """Shift the server's epoch of the year 2000 to 1970."""
        return Instant(int.from_bytes(data, "big", signed=True) + _POSTGRES_EPOCH)


def adapt(connection: AsyncConnection[tuple[object, ...]]) -> None:
    """Teach one connection to read as we need it."""
    for name in ("text", "name", "varchar", "bpchar"):
        connection.adapters.register_loader(name, TolerantText)
    connection.adapters.register_loader("timestamptz", ExactInstant)
