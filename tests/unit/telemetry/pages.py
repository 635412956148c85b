"""The pages served on a real socket, and clients of every kind."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from reaper.telemetry.http.routes import Health, application
from reaper.telemetry.http.server import listen, serve
from reaper.telemetry.log import LogFormat, LogLevel, make_log
from reaper.telemetry.metrics.collect import Metrics

FOREVER: Final = 600.0
AT_ONCE: Final = 0.05
LOOPBACK: Final = "127.0.0.1"


def good() -> Health:
    return Health(good=True, reasons={})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content

    @classmethod
    def of(cls, raw: bytes) -> "Answer":
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in headers.items()}
        return cls(int(first.split()[1]), headers, body.decode())


@dataclass(frozen=True, slots=True)
class Pages:
    """The port of the pages, and what they have logged."""

    port: int
    logged: io.StringIO

    async def connect(self, raw: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and send this."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        writer.write(raw)
        return reader, writer

    async def send(self, raw: bytes) -> bytes:
        """Send this and read all of the answer."""
        reader, writer = await self.connect(raw)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Send a proper request."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return Answer.of(
            await self.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        )


@asynccontextmanager
async def serving(
    *,
    names: tuple[str, ...] = (),
    seconds: float = FOREVER,
    **data: Any,  # noqa: ANN401 (as `application` takes it)
) -> AsyncIterator[Pages]:
    """The pages, while the block runs."""
    defaults: dict[str, Any] = {"metrics": Metrics("1.2.3"), "livez": good, "readyz": good}
    listener = listen(LOOPBACK, 0, seconds=seconds)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    logged = io.StringIO()
    app = application(**defaults | data)
    log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=logged)
    running = asyncio.create_task(serve(app, listener, stop, log=log, names=names))
    try:
        async with asyncio.timeout(300):  # a hang is a failure
            yield Pages(port, logged)
    finally:
        stop.set()
        await running


def get(*paths: str, method: str = "GET", **options: Any) -> list[Answer]:  # noqa: ANN401 (as above)
    """The answers to requests for these paths, one after the other."""

    async def run() -> list[Answer]:
        async with serving(**options) as pages:
            return [await pages.get(path, method=method) for path in paths]

    return asyncio.run(run())
