"""/snapshot for programs: everybody at one server, session by session, as `reaper snapshot` saves them."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reaper.telemetry.answers import Answers

Rows = Callable[[str], Awaitable[bytes | None]]
"""A look at the server of this name, as a file; None when there is no such server, or nobody has seen it."""

_KEPT_SECONDS: Final = 1.0
_LONGEST_NAME: Final = 200
_NOT_SEEN: Final = "no such server (?server=NAME), or nobody has seen it yet"


def row_routes(rows: Rows) -> list[Route]:
    """The page; made once for all who ask within a second."""
    answers = Answers[str, bytes | None](rows, seconds=_KEPT_SECONDS)

    async def snapshot(request: Request) -> Response:
        name = request.query_params.get("server", "")[:_LONGEST_NAME]
        body = await answers.to(name)
        if body is None:
            return JSONResponse({"error": _NOT_SEEN}, status_code=404)
        return Response(body, media_type="application/json")

    return [Route("/snapshot", snapshot)]
