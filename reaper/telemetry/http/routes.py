"""Every path of the HTTP port. Answers that take a query or a calculation are kept for a moment."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reaper.insight.dryrun.assessment import ASSESSMENT_FORMAT, assessment_document
from reaper.policy.text import as_document, printable
from reaper.telemetry.http.page import file_text, render
from reaper.telemetry.http.views import FORMAT, Overview, ServiceAssessment
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.exposition import MetricsPage, accepted_format

_KEPT_SECONDS: Final = 2.0
_SNAPSHOT_KEPT_SECONDS: Final = 1.0
_MAX_KEPT: Final = 256
"""Answers that are kept at once; further ones are made for each request."""
_MAX_NAME: Final = 200
_NO_SUCH: Final = "no such server"
_NO_SNAPSHOT: Final = "no such server (?server=NAME), or no snapshot of it was taken yet"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The answer to a probe."""

    good: bool
    reasons: Mapping[str, str]
    """For each part of the service that has a problem, the reason."""


Probe = Callable[[], Health]
ReadOverview = Callable[[str | None], Awaitable[Overview | None]]
"""Returns the overview with the server of this name in full; None if there is no such server."""
ReadSnapshot = Callable[[str], Awaitable[bytes | None]]
"""Returns a snapshot of the server of this name as a file; None if there is none."""
ReadAssessment = Callable[[], Awaitable[ServiceAssessment]]


def application(
    *,
    metrics: Metrics,
    livez: Probe,
    readyz: Probe,
    overview: ReadOverview | None = None,
    assessment: ReadAssessment | None = None,
    snapshot: ReadSnapshot | None = None,
) -> Starlette:
    """The routes of the HTTP port: the status page, the assessment and snapshots if their data is given."""
    routes = [_metrics_route(metrics), _probe_route("/livez", livez), _probe_route("/readyz", readyz)]
    routes += _page_routes(overview) if overview else []
    routes += [_assess_route(assessment)] if assessment else []
    routes += [_snapshot_route(snapshot)] if snapshot else []
    pages = Starlette(routes=routes)
    pages.router.redirect_slashes = False
    return pages


class ResponseCache(Generic[K, V]):
    """Answers by key, each made again when it is too old; requests meanwhile wait for the one being made."""

    def __init__(
        self,
        make: Callable[[K], Awaitable[V]],
        *,
        seconds: float = _KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._clock = clock
        self._kept: dict[K, tuple[float, asyncio.Task[V]]] = {}

    async def get(self, key: K) -> V:
        """Return the answer for this key."""
        now = self._clock()
        known = self._kept.get(key)
        if known is None or (known[0] <= now and known[1].done()):
            if len(self._kept) >= _MAX_KEPT:
                self._kept = {other: kept for other, kept in self._kept.items() if kept[0] > now}
            known = now + self._seconds, asyncio.ensure_future(self._make(key))
            if len(self._kept) < _MAX_KEPT:
                self._kept[key] = known
        # A client that leaves must not cancel the answer for the others.
        return await asyncio.shield(known[1])


def _metrics_route(metrics: Metrics) -> Route:
    async def make(accepted: str) -> MetricsPage:
        # In a thread: with hundreds of servers it takes a while, and the cycles must go on.
        return await asyncio.to_thread(metrics.exposition, accepted)

    # Not kept, only shared by the scrapes that arrive while it is being made.
    pages = ResponseCache(make, seconds=0)

    async def scrape(request: Request) -> Response:
        page = await pages.get(accepted_format(request.headers.get("accept", "")))
        return Response(page.body, headers={"content-type": page.content_type})

    return Route("/metrics", scrape)


def _probe_route(path: str, probe: Probe) -> Route:
    async def answer(_: Request) -> Response:
        health = probe()
        reasons = {printable(part): printable(reason) for part, reason in health.reasons.items()}
        status = 200 if health.good else 503
        return JSONResponse({"ok": health.good, "reasons": reasons}, status_code=status)

    return Route(path, answer)


def _page_routes(overview: ReadOverview) -> list[Route]:
    overviews = ResponseCache(overview)

    async def render_page(key: tuple[str | None, bool]) -> bytes | None:
        server, paused = key
        seen = await overviews.get(server)
        return None if seen is None else await asyncio.to_thread(render, seen, paused=paused)

    async def make_usage(server: str | None) -> Response | None:
        seen = await overviews.get(server)
        return None if seen is None else _ascii_json({"usage": FORMAT, "overview": as_document(seen)})

    pages = ResponseCache(render_page)
    usages = ResponseCache(make_usage)

    async def page(request: Request) -> Response:
        body = await pages.get((_server_of(request), "pause" in request.query_params))
        if body is None:
            return Response(_NO_SUCH, status_code=404, media_type="text/plain")
        return Response(body, media_type="text/html")

    async def usage(request: Request) -> Response:
        return await usages.get(_server_of(request)) or _not_found(_NO_SUCH)

    files = [_file_route("style.css", "text/css"), _file_route("icon.svg", "image/svg+xml")]
    return [Route("/", page), Route("/usage", usage), *files]


def _file_route(name: str, media_type: str) -> Route:
    async def answer(_: Request) -> Response:
        return Response(file_text(name), media_type=media_type)

    return Route(f"/{name}", answer)


def _snapshot_route(snapshot: ReadSnapshot) -> Route:
    snapshots = ResponseCache(snapshot, seconds=_SNAPSHOT_KEPT_SECONDS)

    async def answer(request: Request) -> Response:
        body = await snapshots.get(_server_of(request) or "")
        return _not_found(_NO_SNAPSHOT) if body is None else Response(body, media_type="application/json")

    return Route("/snapshot", answer)


def _assess_route(assessment: ReadAssessment) -> Route:
    async def make(_: None) -> Response:
        found = await assessment()
        document = {
            "assessment": ASSESSMENT_FORMAT,
            "policies": [assessment_document(one) for one in found.policies],
            "watched": found.watched,
            "forgotten": found.forgotten,
            "refill_guarded": [
                {**pool.session._asdict(), "server": pool.server, "policy": pool.policy}
                | {"until": pool.until, "reason": pool.reason}
                for pool in found.refill_guarded
            ],
        }
        return _ascii_json(document)

    answers = ResponseCache(make)

    async def answer(_: Request) -> Response:
        return await answers.get(None)

    return Route("/assess", answer)


def _server_of(request: Request) -> str | None:
    name = request.query_params.get("server")
    return None if name is None else name[:_MAX_NAME]


def _ascii_json(document: object) -> Response:
    # In ASCII: names are as clients wrote them, and curl prints them on a terminal.
    return Response(json.dumps(document), media_type="application/json")


def _not_found(why: str) -> Response:
    return JSONResponse({"error": why}, status_code=404)
