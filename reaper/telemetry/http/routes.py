"""The status page for people and /usage for programs."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reaper.insight.dryrun.assessment import ASSESSMENT_FORMAT, Assessment, assessment_document
from reaper.policy.json import as_document
from reaper.policy.session import Identity
from reaper.telemetry.http.views import FORMAT, Overview

_MOST: Final = 256
"""So many answers are kept at once; questions beyond are answered each time."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def as_json(document: object) -> Response:
    """The document in ASCII: who fetches it with curl has a terminal, and names are as clients wrote them."""
    return Response(json.dumps(document), media_type="application/json")


class Answers(Generic[K, V]):
    """Makes an answer when the last one to the same question is too old, one at a time for each question."""

    def __init__(
        self,
        make: Callable[[K], Awaitable[V]],
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._clock = clock
        self._made: dict[K, tuple[float, asyncio.Task[V]]] = {}

    async def to(self, question: K) -> V:
        """The response; requests that arrive while it is built wait for it."""
        now = self._clock()
        known = self._made.get(question)
        if known is None or known[0] <= now:
            if len(self._made) >= _MOST:
                self._made = {key: held for key, held in self._made.items() if held[0] > now}
            known = now + self._seconds, asyncio.ensure_future(self._make(question))
            if len(self._made) < _MOST:
                self._made[question] = known
        # A visitor who leaves does not take the answer away from the others.
        return await asyncio.shield(known[1])


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


_VERDICTS_KEPT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A group that refills at once, and that a policy leaves alone."""

    server: str
    policy: str
    session: Identity
    until: str | None
    """By the server's clock."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What a reaper has learnt from its rehearsals and its acts since it began."""

    policies: tuple[Assessment, ...] = ()
    watched: int = 0
    """Sessions of which it is still to be seen what becomes of them."""
    forgotten: int = 0
    """Older acts that only the record still knows."""
    left_alone: tuple[LeftAlone, ...] = ()


Learnt = Callable[[], Awaitable[Verdicts]]


def verdict_routes(learnt: Learnt) -> list[Route]:
    """The page of verdicts."""

    async def made(_: None) -> Verdicts:
        return await learnt()

    answers = Answers[None, Verdicts](made, seconds=_VERDICTS_KEPT_SECONDS)

    async def rehearsal(_: Request) -> Response:
        return as_json(document_of(await answers.to(None)))

    return [Route("/rehearsal", rehearsal)]


def document_of(verdicts: Verdicts) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "rehearsal": ASSESSMENT_FORMAT,
        "policies": [assessment_document(one) for one in verdicts.policies],
        "watched": verdicts.watched,
        "forgotten": verdicts.forgotten,
        "left_alone": [
            {
                "server": one.server,
                "policy": one.policy,
                **one.session._asdict(),
                "until": one.until,
                "reason": one.reason,
            }
            for one in verdicts.left_alone
        ],
    }


Look = Callable[[str | None], Awaitable[Overview | None]]
"""Looks round: the fleet, and the server of this name in full; None when there is no such server."""

_STATUS_KEPT_SECONDS: Final = 2.0
_STATUS_LONGEST_NAME: Final = 200
_NO_SUCH: Final = "no such server"

_Question = tuple[str | None, bool]
"""The server that is meant, and whether the page stands still."""


def status_routes(look: Look) -> list[Route]:
    """The usage pages; a response is cached for a few seconds and shared by all requests."""
    views = Answers(look, seconds=_STATUS_KEPT_SECONDS)

    async def drawn(question: _Question) -> bytes | None:
        server, paused = question
        seen = await views.to(server)
        return None if seen is None else await asyncio.to_thread(_rendered, seen, paused=paused)

    async def told(server: str | None) -> Response | None:
        seen = await views.to(server)
        return None if seen is None else as_json({"usage": FORMAT, "overview": as_document(seen)})

    pages = Answers(drawn, seconds=_STATUS_KEPT_SECONDS)
    documents = Answers(told, seconds=_STATUS_KEPT_SECONDS)

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
    return None if name is None else name[:_STATUS_LONGEST_NAME]


def _rendered(seen: Overview, *, paused: bool) -> bytes:
    from reaper.telemetry.http.page import rendered  # noqa: PLC0415 (a reaper whom nobody visits does without)

    return rendered(seen, paused=paused)


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def file(_: Request) -> Response:
        from reaper.telemetry.http.page import text  # noqa: PLC0415

        return Response(text(name), media_type=media_type)

    return file
