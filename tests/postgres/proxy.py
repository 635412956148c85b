"""Disturbances of a connection: a proxy that cuts, resets and stalls, one like a pooler, a frozen backend."""

import asyncio
import os
import re
import signal
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Final, Self, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reaper.demo.server import free_ports

from .waiting import PATIENCE

T = TypeVar("T")

_CHUNK: Final = 65_536
# SO_LINGER on with a time of 0: close sends RST instead of FIN.
LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to a server, in its own thread, until a test disturbs them."""

    def __init__(self, dsn: str) -> None:
        self.point_at(dsn)
        self.port = next(free_ports())
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._forwarding = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._ends: set[StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def dsn(self, dsn: str | None = None) -> str:
        """Return this connection string (by default the superuser's) with the proxy's address."""
        return make_conninfo(dsn or self._dsn, host="127.0.0.1", hostaddr="", port=self.port)

    def point_at(self, dsn: str) -> None:
        """Connect new clients to this server; open connections stay where they are."""
        target = conninfo_to_dict(dsn)
        self._dsn = dsn
        self._target = (str(target["host"]), int(target.get("port") or 5432))

    def restore(self) -> None:
        """Accept connections and forward all data, also the data that was received while stalled."""
        self._do(self._restore())

    def cut(self) -> None:
        """Close all connections and refuse new ones."""
        self._do(self._refuse())
        self._do(self._drop(_close))

    def reset(self) -> None:
        """Reset all connections; new ones are accepted."""
        self._do(self._drop(_reset))

    def stall(self) -> None:
        """Keep and accept connections, but forward nothing, as on a half-open link."""
        self._loop.call_soon_threadsafe(self._forwarding.clear)

    def _do(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _restore(self) -> None:
        self._forwarding.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None

    async def _drop(self, how: Callable[[StreamWriter], None]) -> None:
        for end in self._ends:
            how(end)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _close(self) -> None:
        await self._refuse()
        await self._drop(_reset)

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._pumps.add(task)
        self._ends.add(writer)
        try:
            await self._connect(reader, writer)
        except* (OSError, asyncio.CancelledError):
            pass  # one end has closed the connection, or the proxy has dropped it
        finally:
            self._pumps.discard(task)
            self._ends.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        await self._forwarding.wait()
        there, back = await asyncio.open_connection(*self._target)
        self._ends.add(back)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, back))
                pumps.create_task(self._pump(there, writer))
        finally:
            self._ends.discard(back)
            back.transport.abort()

    async def _pump(self, source: StreamReader, sink: StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            await self._forwarding.wait()
            sink.write(chunk)
            await sink.drain()
        sink.close()


def _close(end: StreamWriter) -> None:
    end.close()


def _reset(end: StreamWriter) -> None:
    link: socket.socket = end.get_extra_info("socket")
    with suppress(OSError):  # the other end has just closed it
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    end.transport.abort()


# BackendKeyData with its pid and secret, and the ReadyForQuery that ends the login.
_KEY: Final = re.compile(rb"(K\x00\x00\x00\x0c).{4}(.{4}Z\x00\x00\x00\x05I)", re.DOTALL)


def _under_another_pid(found: re.Match[bytes]) -> bytes:
    return found[1] + (1).to_bytes(4, "big") + found[2]


class Pooler(Proxy):
    """Forwards everything unchanged except the pid."""

    async def _pump(self, source: StreamReader, sink: StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            sink.write(_KEY.sub(_under_another_pid, chunk))
            await sink.drain()
        sink.close()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a backend and continue it at the end."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
