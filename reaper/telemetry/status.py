"""/usage for programs: who holds the connections, and what the reaper is about."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reaper.policy.documents import as_document
from reaper.telemetry.answers import Answers
from reaper.telemetry.views import Overview

Look = Callable[[str | None], Awaitable[Overview | None]]
"""Looks round: the fleet, and the server of this name in full; None when there is no such server."""

_KEPT_SECONDS: Final = 2.0
_LONGEST_NAME: Final = 200
FORMAT: Final = 1


def status_routes(look: Look) -> list[Route]:
    """The pages that show who holds the connections."""
    views = Answers(look, seconds=_KEPT_SECONDS)

    async def usage(request: Request) -> Response:
        seen = await views.to(asked(request))
        if seen is None:
            return JSONResponse({"error": "no such server"}, status_code=404)
        return JSONResponse({"usage": FORMAT, "overview": as_document(seen)})

    return [Route("/usage", usage)]


def asked(request: Request) -> str | None:
    """The server that is meant."""
    name = request.query_params.get("server")
    return None if name is None else name[:_LONGEST_NAME]
