"""/metrics, /livez and /readyz, on the service's own event loop: an answer proves that the loop lives.

Read-only, and a client that dawdles is shown the door: it must not be able to keep a probe out.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from reaper.telemetry.health import Probe
from reaper.telemetry.metrics import Metrics

_PATIENCE_SECONDS: Final = 5
_MOST_CONNECTIONS: Final = 64
_LARGEST_REQUEST: Final = 16_384


def application(*, metrics: Metrics, livez: Probe, readyz: Probe) -> Starlette:
    """The pages."""

    async def scrape(_: Request) -> Response:
        body, content_type = metrics.exposition()
        return Response(body, media_type=content_type)

    async def live(_: Request) -> Response:
        return _answer(livez)

    async def ready(_: Request) -> Response:
        return _answer(readyz)

    return Starlette(routes=[Route("/metrics", scrape), Route("/livez", live), Route("/readyz", ready)])


def _answer(probe: Probe) -> Response:
    health = probe()
    return JSONResponse(
        {"ok": health.good, **health.reasons},
        status_code=200 if health.good else 503,
        headers={"cache-control": "no-store"},
    )


def listen(host: str, port: int) -> socket.socket:
    """Take the port, before anything else begins; OSError when somebody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, reuse_port=False)


async def serve(pages: Starlette, listening: socket.socket, stop: asyncio.Event) -> None:
    """Answer requests until the stop."""
    server = _Server(
        uvicorn.Config(
            pages,
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_LARGEST_REQUEST,
            timeout_keep_alive=_PATIENCE_SECONDS,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http requests")
    stopped = asyncio.create_task(stop.wait(), name="http until the stop")
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    server.should_exit = True
    await serving


class _Server(uvicorn.Server):
    """Leaves the signals to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _ImpatientProtocol(H11Protocol):
    """Closes a connection that has not asked for anything within a few seconds."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 (uvicorn's own type is a union of two)
        """Start to wait for a request."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(_PATIENCE_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
