"""The pages, served on a real socket, and visitors of every kind."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from reaper.telemetry.http.routes import (
    Health,
    Probe,
    ReadAssessment,
    ReadOverview,
    ReadSnapshot,
    application,
)
from reaper.telemetry.http.server import listen, serve
from reaper.telemetry.log import LogFormat, LogLevel, make_log
from reaper.telemetry.metrics.collect import Metrics

FOREVER: Final = 600.0
"""A patience that no test waits for."""

AT_ONCE: Final = 0.05
"""A patience that is soon over."""

LOOPBACK: Final = "127.0.0.1"


def well() -> Health:
    return Health(good=True, reasons={})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def content(self) -> dict[str, object]:
        content: dict[str, object] = json.loads(self.body)
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
    """Where the pages are, and what they have logged."""

    port: int
    logged: io.StringIO

    async def come(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and say nothing yet."""
        return await asyncio.open_connection(LOOPBACK, self.port)

    async def say(self, raw: bytes) -> bytes:
        """Say this, and listen to the end."""
        reader, writer = await self.come()
        writer.write(raw)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def ask(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Make a proper request."""
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return Answer.of(
            await self.say(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{told}\r\n".encode())
        )


@asynccontextmanager
async def serving(  # noqa: PLR0913 (all that `application` and `serve` take)
    *,
    metrics: Metrics | None = None,
    livez: Probe = well,
    readyz: Probe = well,
    overview: ReadOverview | None = None,
    assessment: ReadAssessment | None = None,
    snapshot: ReadSnapshot | None = None,
    names: tuple[str, ...] = (),
    patience: float = FOREVER,
) -> AsyncIterator[Pages]:
    """The pages, as long as the block lasts."""
    listener = listen(LOOPBACK, 0, seconds=patience)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    logged = io.StringIO()
    pages = application(
        metrics=metrics or Metrics("1.2.3"),
        livez=livez,
        readyz=readyz,
        overview=overview,
        assessment=assessment,
        snapshot=snapshot,
    )
    log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=logged)
    running = asyncio.create_task(serve(pages, listener, stop, log=log, names=names))
    try:
        yield Pages(port, logged)
    finally:
        stop.set()
        await running


def visit(scene: Callable[[Pages], Awaitable[None]], **told: Any) -> None:  # noqa: ANN401 (as `serving` takes it)
    """Play a scene with pages of its own."""

    async def play() -> None:
        async with asyncio.timeout(60), serving(**told) as pages:  # a hang is a failure
            await scene(pages)

    asyncio.run(play())
