"""The status page for people and /usage for programs: who holds the connections, what the reaper is about."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reaper.policy.documents import as_document
from reaper.telemetry.answers import Answers, as_json
from reaper.telemetry.views import FORMAT, Overview

Look = Callable[[str | None], Awaitable[Overview | None]]
"""Looks round: the fleet, and the server of this name in full; None when there is no such server."""

_KEPT_SECONDS: Final = 2.0
_LONGEST_NAME: Final = 200
_NO_SUCH: Final = "no such server"

_Question = tuple[str | None, bool]
"""The server that is meant, and whether the page stands still."""


def status_routes(look: Look) -> list[Route]:
    """The pages that show who holds the connections; each is made once for all who come within seconds."""
    views = Answers(look, seconds=_KEPT_SECONDS)

    async def drawn(question: _Question) -> bytes | None:
        server, paused = question
        seen = await views.to(server)
        return None if seen is None else await asyncio.to_thread(_rendered, seen, paused=paused)

    async def told(server: str | None) -> Response | None:
        seen = await views.to(server)
        return None if seen is None else as_json({"usage": FORMAT, "overview": as_document(seen)})

    pages = Answers(drawn, seconds=_KEPT_SECONDS)
    documents = Answers(told, seconds=_KEPT_SECONDS)

    async def page(request: Request) -> Response:
        body = await pages.to((_asked(request), "pause" in request.query_params))
        if body is None:
            return Response(_NO_SUCH, status_code=404, media_type="text/plain")
        return Response(body, media_type="text/html")

    async def usage(request: Request) -> Response:
        document = await documents.to(_asked(request))
        return document or JSONResponse({"error": _NO_SUCH}, status_code=404)

    return [
        Route("/", page),
        Route("/usage", usage),
        Route("/style.css", _file("style.css", "text/css")),
        Route("/icon.svg", _file("icon.svg", "image/svg+xml")),
    ]


def _asked(request: Request) -> str | None:
    name = request.query_params.get("server")
    return None if name is None else name[:_LONGEST_NAME]


def _rendered(seen: Overview, *, paused: bool) -> bytes:
    from reaper.telemetry.page import rendered  # noqa: PLC0415 (a reaper whom nobody visits does without)

    return rendered(seen, paused=paused)


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def file(_: Request) -> Response:
        from reaper.telemetry.page import text  # noqa: PLC0415

        return Response(text(name), media_type=media_type)

    return file
