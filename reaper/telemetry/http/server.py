"""The HTTP port: one request a connection, a few seconds for each, and no name but ours on loopback.

It runs on the event loop of the service on purpose: an answered probe proves that this loop runs. No client
can keep a probe from its answer: a connection that is slow or silent is closed, and so is the oldest one when
too many are open.
"""

import asyncio
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reaper.telemetry import events
from reaper.telemetry.log import Log

MAX_CONNECTIONS: Final = 64
_CONNECTION_SECONDS: Final = 5.0
_ACCEPTED_AT_ONCE: Final = 8
"""Connections accepted in one turn of the loop: more could use up the files that the process may open, before
the oldest ones are closed."""
_QUEUE: Final = 4_096
"""Connections that wait to be accepted: a probe that finds a full queue tries again only after a second."""
_MAX_REQUEST_BYTES: Final = 16_384
_MAX_REQUESTS: Final = 128
"""Requests in progress, among them those of clients that were disconnected; further ones get 503."""

_MISDIRECTED: Final = 421
_OTHER_NAME: Final = (
    "this port accepts requests to addresses and to localhost, because a web page could make any other name "
    "lead here\nhint: accept your own name with --listen-name NAME\n"
)
_STOPPING: Final = "the reaper is stopping: try again when it is back\n"
_OUR_FILES_ONLY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = [
    ("connection", "close"),
    ("cache-control", "no-store"),
    # The pages contain names that clients chose: a browser must not run or load anything because of them.
    ("content-security-policy", _OUR_FILES_ONLY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
]


class Listener(socket.socket):
    """A listening socket that limits the number of its connections and the duration of each.

    uvicorn limits only the time between two requests: a client that sends half a request, or does not read
    the answer, would keep its connection for ever.
    """

    def __init__(self, bound: socket.socket, seconds: float) -> None:
        super().__init__(fileno=bound.detach())
        self._seconds = seconds
        self._deadlines: dict[socket.socket, asyncio.TimerHandle] = {}

    def listen(self, _: int = _QUEUE, /) -> None:
        """Listen with a long queue; asyncio would make it as short as the number that it accepts at once."""
        super().listen(_QUEUE)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and close the oldest one if too many are open."""
        connection, address = super().accept()
        for closed in [other for other in self._deadlines if other.fileno() < 0]:
            self._deadlines.pop(closed).cancel()
        if len(self._deadlines) >= MAX_CONNECTIONS:
            oldest = next(iter(self._deadlines))
            self._deadlines.pop(oldest).cancel()
            _shut_down(oldest)
        deadline = asyncio.get_running_loop().call_later(self._seconds, _shut_down, connection)
        self._deadlines[connection] = deadline
        return connection, address


def _shut_down(connection: socket.socket) -> None:
    # asyncio owns the socket and closes it: it reads the end of the stream now, and its next write fails.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def listen(host: str, port: int, *, seconds: float = _CONNECTION_SECONDS) -> Listener:
    """Bind the port, before anything else starts; OSError if it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listener(socket.create_server((host, port), family=family, reuse_port=False), seconds)


async def serve(
    pages: Starlette, listener: Listener, stop: asyncio.Event, *, log: Log, names: Collection[str] = ()
) -> None:
    """Answer requests until the stop; `names` are the host names that a loopback port accepts."""
    server = _HttpServer(
        uvicorn.Config(
            check_host(_finished(pages, log), at=listener.getsockname()[0], names=names),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            # Below this level it logs mistakes of clients, and failures that `_finished` logs already.
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            headers=_HEADERS,
            h11_max_incomplete_event_size=_MAX_REQUEST_BYTES,
            limit_concurrency=_MAX_REQUESTS,
            backlog=_ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=1,
        )
    )
    stopping = asyncio.create_task(stop.wait(), name="http stop")
    stopping.add_done_callback(lambda _: server.exit())
    try:
        await server.serve(sockets=[listener])
    finally:
        stopping.cancel()


class _HttpServer(uvicorn.Server):
    """A server that leaves the signals to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: uvicorn would replace the service's handlers, and has no option against it.

        This is the only method that we override; pyproject.toml bounds the version of uvicorn for it.
        """
        yield

    def exit(self) -> None:
        """Stop serving at the next turn."""
        self.should_exit = True


def _finished(pages: ASGIApp, log: Log) -> ASGIApp:
    """Log the requests that fail, and answer 503 to those that are open at shutdown."""

    async def finished(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            # It fails only if the client broke the protocol meanwhile; uvicorn has answered 400 then.
            with suppress(Exception):
                await send(message)

        try:
            await pages(scope, receive, sent)
        except asyncio.CancelledError:
            if not started:
                await Response(_STOPPING, status_code=503, media_type="text/plain")(scope, receive, send)
        except Exception as error:
            # Starlette has answered 500.
            log.exception(events.HTTP_FAILED, why=f"{type(error).__name__}: {error}", exc_info=error)

    return finished


def check_host(pages: ASGIApp, *, at: str, names: Collection[str] = ()) -> ASGIApp:
    """Refuse requests to other names, if the pages are served on a loopback address.

    A web page in a browser on this host could make its own name lead to this port and read the answers (DNS
    rebinding); it cannot do so with an address or with localhost.
    """
    if not ip_address(at).is_loopback:
        return pages
    known = {"localhost", *map(_folded, names)}

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = (value.decode("latin-1") for name, value in scope["headers"] if name == b"host")
        if all(_is_accepted(host, known) for host in hosts):
            await pages(scope, receive, send)
        else:
            refusal = Response(_OTHER_NAME, status_code=_MISDIRECTED, media_type="text/plain")
            await refusal(scope, receive, send)

    return checked


def _is_accepted(host: str, known: Collection[str]) -> bool:
    name, colon, port = host.rpartition(":")
    if not colon or not port.isascii() or not (port.isdigit() or not port):
        name = host
    if _folded(name) in known:
        return True
    with suppress(ValueError):
        return bool(ip_address(name.removeprefix("[").removesuffix("]")))
    return False


def _folded(name: str) -> str:
    return name.lower().removesuffix(".")
