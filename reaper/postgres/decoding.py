"""How values of the server become ours: no byte that a client chose can fail a fetch."""

import struct
from typing import Final

from psycopg import AsyncConnection
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from reaper.policy.time import Instant

_INTEGER: Final = struct.Struct("!q")
POSTGRES_EPOCH: Final = 946_684_800_000_000


class TolerantText(Loader):
    """Text of whatever encoding: one invalid byte in one name must not blind us to everybody."""

    format = Format.BINARY

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._encoding = tolerable(self.connection.info.encoding if self.connection else "ascii")

    def load(self, data: Buffer) -> str:
        """Decode as the database is encoded, and show every byte that does not fit by its number."""
        return as_text(bytes(data), self._encoding)


def tolerable(encoding: str) -> str:
    """How to read the text of a connection of this encoding."""
    # SQL_ASCII is the absence of an encoding, and most of what stands there is UTF-8.
    return "utf-8" if encoding == "ascii" else encoding


def as_text(data: bytes, encoding: str) -> str:
    """Text from the wire, whatever its bytes."""
    return data.decode(encoding, "backslashreplace")


def as_number(data: bytes) -> int:
    """A whole number from the wire, of whatever size."""
    return int.from_bytes(data, "big", signed=True)


class ExactInstant(Loader):
    """timestamptz as the integer that it is on the wire: exact, cheap, and infinity is just very far."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Instant:
        """Shift the server's epoch of the year 2000 to 1970."""
        return as_instant(data)


def as_instant(data: Buffer | None) -> Instant:
    """A moment from the wire, which must be there."""
    if data is None:
        message = "the server did not say when"
        raise ValueError(message)
    (microseconds,) = _INTEGER.unpack(data)
    return Instant(microseconds + POSTGRES_EPOCH)


def as_flag(data: Buffer | None) -> bool:
    """Yes or no from the wire; what is not known is no."""
    return data is not None and bytes(data) == b"\x01"


def adapt(connection: AsyncConnection[tuple[object, ...]]) -> None:
    """Teach one connection to read as we need it."""
    for name in ("text", "name", "varchar", "bpchar"):
        connection.adapters.register_loader(name, TolerantText)
    connection.adapters.register_loader("timestamptz", ExactInstant)
