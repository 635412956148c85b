"""Client sessions that cost next to nothing: a socket, one query, and a wait for the end."""

import asyncio
import struct
import time
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import Final, NamedTuple, Self

_PROTOCOL: Final = 196_608
_QUERY: Final = b"SELECT 1\0"
_HEAD: Final = struct.Struct("!cI")
_READY: Final = b"Z"
_ERROR: Final = b"E"
_SQLSTATE: Final = b"C"

TERMINATED: Final = "57P01"
TIMED_OUT: Final = "57P05"


class End(NamedTuple):
    """When a session heard of its end, by the monotonic clock of this host, and why."""

    at: float
    sqlstate: str


class Session:
    """A session that has run one query and is idle since."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.idle_since = 0.0

    @classmethod
    async def open(cls, port: int, *, role: str, application: str = "") -> Self:
        """Log in, run the query, and be idle."""
        session = cls(*await asyncio.open_connection("127.0.0.1", port))
        said = {"user": role, "database": "postgres", "application_name": application}
        words = b"".join(f"{key}\0{value}\0".encode() for key, value in said.items()) + b"\0"
        session._writer.write(struct.pack("!II", 8 + len(words), _PROTOCOL) + words)
        await session._until_ready()
        session._writer.write(_HEAD.pack(b"Q", 4 + len(_QUERY)) + _QUERY)
        await session._until_ready()
        return session

    async def end(self) -> End:
        """Wait until the server ends it."""
        try:
            while True:
                kind, body = await self._message()
                at = time.monotonic()
                if kind == _ERROR:
                    return End(at, _sqlstate(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            return End(time.monotonic(), "")

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _until_ready(self) -> None:
        while True:
            kind, body = await self._message()
            if kind == _ERROR:
                raise ConnectionRefusedError(_sqlstate(body))
            if kind == _READY:
                self.idle_since = time.monotonic()
                return

    async def _message(self) -> tuple[bytes, bytes]:
        kind, length = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
        return kind, await self._reader.readexactly(length - 4)


def _sqlstate(body: bytes) -> str:
    fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
    return fields.get(_SQLSTATE, b"").decode("ascii")
