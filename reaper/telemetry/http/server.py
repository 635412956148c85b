"""/metrics, /livez and /readyz, on the service's own event loop: an answered probe proves that it runs.

Read-only. Whoever comes gets one answer and a few seconds for all of it, whatever they do: a client that
dawdles, asks without end or does not read must not be able to keep a probe out. When all places are taken
the one who has been here longest goes.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, ClassVar, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from reaper.policy.text import plain
from reaper.telemetry import events
from reaper.telemetry.http.routes import Learnt, Look, Rows, row_routes, status_routes, verdict_routes
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import Metrics

MISDIRECTED: Final = 421
_REFUSAL: Final = (
    "this port answers to addresses and to localhost, and not to other names, for a web page could make one "
    "lead here; let it answer to yours with --listen-name NAME\n"
)


def for_us(pages: ASGIApp, *, at: str, names: Collection[str] = ()) -> ASGIApp:
    """The pages; when they are served at a loopback address, for those who ask for them by a proper name."""
    if not ip_address(at).is_loopback:
        return pages
    known = {"localhost", *map(_folded, names)}

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = (value.decode("latin-1") for name, value in scope["headers"] if name == b"host")
        if all(_proper(host, known) for host in hosts):
            await pages(scope, receive, send)
        else:
            await Response(_REFUSAL, status_code=MISDIRECTED, media_type="text/plain")(scope, receive, send)

    return answered


def _proper(host: str, known: Collection[str]) -> bool:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An answer to a probe."""

    good: bool
    reasons: Mapping[str, str]
    """For each part that was asked, what it says."""


Probe = Callable[[], Health]


_PATIENCE_SECONDS: Final = 5.0
_MOST_CONNECTIONS: Final = 64
_LARGEST_REQUEST: Final = 16_384
_NEWCOMERS_AT_ONCE: Final = 8
"""In one turn of the loop; a crowd that came in whole would take every file that the process may open, and be
counted among the places before a single request is read."""
_LONGEST_QUEUE: Final = 4_096
"""Of those who wait at the door: a probe that is turned away by a full one comes back after a second only."""
_NOTHING_BUT_OURS: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ENDING: Final = "the reaper is ending: ask again when it is back\n"
_HEADERS: Final = [
    # One request a connection: nobody comes back on one that is about to be closed.
    ("connection", "close"),
    ("cache-control", "no-store"),
    # What clients call themselves stands on these pages: a browser must take it for text.
    ("content-security-policy", _NOTHING_BUT_OURS),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
]


def application(
    *,
    metrics: Metrics,
    livez: Probe,
    readyz: Probe,
    overview: Look | None = None,
    learnt: Learnt | None = None,
    rows: Rows | None = None,
) -> Starlette:
    """The routes of the HTTP port; the status page and assessments if their data is given."""
    one_at_a_time = asyncio.Lock()

    async def scrape(request: Request) -> Response:
        # In a thread, for thousands of servers fill a page that takes a while; the cycles go on meanwhile.
        async with one_at_a_time:
            page = await asyncio.to_thread(metrics.exposition, request.headers.get("accept", ""))
        return Response(page.body, headers={"content-type": page.content_type})

    async def live(_: Request) -> Response:
        return _answer(livez)

    async def ready(_: Request) -> Response:
        return _answer(readyz)

    routes = [Route("/metrics", scrape), Route("/livez", live), Route("/readyz", ready)]
    pages = Starlette(routes=[*routes, *(status_routes(overview) if overview else ())])
    pages.router.routes.extend(verdict_routes(learnt) if learnt else ())
    pages.router.routes.extend(row_routes(rows) if rows else ())
    pages.router.redirect_slashes = False
    return pages


def _answer(probe: Probe) -> Response:
    health = probe()
    reasons = {plain(part): plain(reason) for part, reason in health.reasons.items()}
    return JSONResponse({"ok": health.good, "reasons": reasons}, status_code=200 if health.good else 503)


def listen(host: str, port: int) -> socket.socket:
    """Bind the port, before anything else starts; OSError if it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, reuse_port=False)


def _to_the_end(pages: Starlette) -> ASGIApp:
    """Answer requests that are open at shutdown with 503."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await pages(scope, receive, sent)
        except asyncio.CancelledError:
            if begun:
                raise
            await Response(_ENDING, status_code=503, media_type="text/plain")(scope, receive, send)

    return answered


async def serve(
    pages: Starlette,
    listening: socket.socket,
    stop: asyncio.Event,
    *,
    log: Log,
    names: Collection[str] = (),
    patience: float = _PATIENCE_SECONDS,
) -> None:
    """Answer requests until the stop; on loopback, those that come by an address or one of these names."""
    guarded = for_us(_to_the_end(pages), at=listening.getsockname()[0], names=names)
    server = _Server(
        uvicorn.Config(
            guarded,
            http=_visitors(log, patience),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            headers=_HEADERS,
            h11_max_incomplete_event_size=_LARGEST_REQUEST,
            backlog=_NEWCOMERS_AT_ONCE,
            timeout_graceful_shutdown=1,
        ),
        stop,
    )
    # The program's own logger, which would print beside our log; what matters here comes to `_Complaints`.
    logging.getLogger("uvicorn.error").disabled = True
    await server.serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Leaves the signals to the service, and lets a crowd in slowly."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(config)
        self._stop = stop

    async def main_loop(self) -> None:
        """Wait for the stop; the library's own loop would wake ten times a second to look for it."""
        await self.on_tick(0)  # the headers of every answer
        await self._stop.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin; asyncio takes the backlog for the queue's length too, and that is set right here."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_LONGEST_QUEUE)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _visitors(log: Log, patience: float) -> type[H11Protocol]:
    """The protocol of one server; its makers hand nothing to each connection but their class."""

    class Ours(_Visitor):
        limit = patience
        complaints = _complaints(log)

    return Ours


class _Visitor(H11Protocol):
    """One connection: one request, one answer, and an end."""

    limit: ClassVar[float]
    complaints: ClassVar[logging.Logger]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (uvicorn's own)
        super().__init__(*args, **kwargs)
        self.logger = self.complaints
        self._end: asyncio.TimerHandle | None = None
        self._came = self.loop.time()

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 (uvicorn's own type is a union of two)
        """Make room, and count the seconds."""
        here = (other for other in self.connections if isinstance(other, _Visitor))
        # One who was shown out is still counted for a moment: newcomers must not all evict the same one.
        others = [other for other in here if not other.transport.is_closing()]
        if len(others) >= _MOST_CONNECTIONS:
            min(others, key=lambda other: other._came).transport.abort()  # noqa: SLF001 (our own class)
        super().connection_made(transport)
        self._end = self.loop.call_later(self.limit, transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Say that this is no request; who sends rubbish after a request has nothing more to expect."""
        if self.cycle is None:
            super().send_400_response(msg)
        else:
            self.cycle.disconnected = True
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting."""
        if self._end:
            self._end.cancel()
        super().connection_lost(exc)


def _complaints(log: Log) -> logging.Logger:
    """What uvicorn has to say: of visitors' mistakes nothing, of ours one line in our own log."""
    logger = logging.Logger("http", logging.ERROR)  # noqa: LOG001 (ours alone, not the program's)
    logger.addHandler(_Complaints(log))
    return logger


class _Complaints(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            return  # whom the end found here
        self._log.error(events.HTTP_FAILED, why=record.getMessage().strip(), exc_info=error)
