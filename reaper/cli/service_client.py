"""The client for the HTTP port of a running service.

An answer is bounded in time and size and checked before use: another program may listen at that address.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from reaper.cli.errors import Misconfigured, ServerTrouble
from reaper.cli.options import USUAL_ADDRESS
from reaper.cli.output import progress
from reaper.history.snapshot import BadSnapshot, parse_snapshot
from reaper.insight.dryrun.assessment import ASSESSMENT_FORMAT
from reaper.policy.refill_guard import Group, PausedGroup
from reaper.policy.session import Identity, Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp, from_datetime, parse_time
from reaper.service.connection import snapshot_interval
from reaper.telemetry.http.views import FORMAT, Overview

_TIMEOUT: Final = 6.0
_MAX_BYTES: Final = 16 * 1024 * 1024
_FRESH_SECONDS: Final = 2.0
"""The service takes at most one snapshot for its pages in this time."""
# Counts and ages stay far below; arithmetic with larger numbers may overflow.
_MAX_NUMBER: Final = 1e15
_FOREIGN: Final = "answers, but not as a reaper of this version does"
_OK, _NOT_FOUND, _MISDIRECTED = 200, 404, 421

T = TypeVar("T")


class NoService(ServerTrouble):
    """No usable answer from a running service."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _ServiceAnswer(BaseModel):
    """A part of an answer; a later version may have more fields."""

    model_config = ConfigDict(extra="allow", strict=True)


class _RegretAnswer(_ServiceAnswer):
    unused: int
    left: int
    used_again: int
    unknown: int
    too_soon: int
    regret: float | None
    regret_up_to: float
    regret_if_all_left_were_used: float | None


class _ApplicationAnswer(_RegretAnswer):
    application: str


class _LimitAnswer(_ServiceAnswer):
    key: str
    limit: str
    used_again: int
    decided: int


class _AssessedPolicyAnswer(_RegretAnswer):
    policy: str
    advice: str
    summary: str
    dry_runs: int
    earlier_dry_runs: int
    servers: int
    slots_at_once: int
    session_hours: float
    used_again_after_s: float | None
    limit: _LimitAnswer | None
    applications: list[_ApplicationAnswer]
    more_applications: int


class _GuardedGroup(_ServiceAnswer):
    server: str
    policy: str
    role: str | None
    database: str | None
    application: str | None
    client: str | None
    until: str | None
    reason: str


class _AssessmentAnswer(_ServiceAnswer):
    assessment: int
    policies: list[_AssessedPolicyAnswer]
    refill_guarded: list[_GuardedGroup]


class ServiceClient:
    """Requests to one running service; each raises NoService if there is no usable answer."""

    def __init__(self, url: str, *, timeout: float = _TIMEOUT) -> None:
        self.base = _base(url)
        self._timeout = timeout

    def usage(self, server: str | None) -> Overview:
        """Return the overview of its servers, with the usage of this one or of the only one."""
        path = "/usage" if server is None else f"/usage?server={quote(server, safe='')}"
        try:
            overview = self._parsed(path, _overview)
        except NoService as error:
            if error.status != _NOT_FOUND or server is None:
                raise
            self._fail(f"the reaper at {self.base} serves {_names(self.usage(None))}, and not {server}")
        if overview.shown and overview.shown.usage is None:
            name = overview.shown.name
            states = [": ".join(filter(None, (x.state, x.why))) for x in overview.servers if x.name == name]
            self._fail(
                f"the reaper at {self.base} has no snapshot of {name}: {states[0] if states else 'unknown'}"
            )
        return overview

    def assessment(self) -> dict[str, Any]:
        """Return the assessment of its dry-run policies since it started."""
        return self._parsed("/assess", _assessment)

    def paused_groups(self, server: str) -> dict[Group, PausedGroup]:
        """Return the groups of this server that the refill guard pauses."""
        pools = [_paused(row) for row in self.assessment()["refill_guarded"] if row["server"] == server]
        return {pool.group: pool for pool in pools}

    def snapshot(self, server: str) -> Snapshot:
        """Return a snapshot of all sessions of a server."""
        body = self.get(f"/snapshot?server={quote(server, safe='')}")
        try:
            return parse_snapshot(body, file=self.base)
        except BadSnapshot:
            self._fail(f"{self.base} {_FOREIGN}")

    def chosen(self, server: str | None) -> tuple[str, Overview]:
        """Return the name of this server, or of the only one, and the overview."""
        overview = self.usage(server)
        if overview.shown is None:
            self._fail(
                f"the reaper at {self.base} serves {_names(overview)}\nhint: choose one with --server NAME"
            )
        return overview.shown.name, overview

    def snapshots(self, server: str | None, span: Duration) -> Iterator[Snapshot]:
        """Yield snapshots of this server, or of the only one, during this time; at least one."""
        name, _ = self.chosen(server)
        interval = max(snapshot_interval(span) / SECOND, _FRESH_SECONDS)
        began = time.monotonic()
        with progress(f"requesting snapshots from {self.base}", span / SECOND) as advance:
            yield self.snapshot(name)
            while (left := span / SECOND - (time.monotonic() - began)) > 0:
                time.sleep(min(left, interval))
                advance(min(left, interval))
                yield self.snapshot(name)

    def get(self, path: str) -> bytes:
        """Return the body of an answer with status 200 that was complete in time."""
        late = threading.Event()
        parts = urlsplit(self.base)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        # Not through a proxy: the port is in this network, and its answers name users and clients.
        connection = kind(parts.hostname or "", parts.port, timeout=self._timeout)
        try:
            connection.connect()
            # A socket's own timeout starts again with every byte that arrives.
            timer = threading.Timer(self._timeout, _shut_down, (connection.sock, late))
            timer.start()
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read(_MAX_BYTES + 1)
            finally:
                timer.cancel()
            if late.is_set():
                raise TimeoutError  # without a content-length, a truncated body looks complete
        except (OSError, HTTPException, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            why = f"no complete answer within {self._timeout:g}s" if late.is_set() else why
            self._fail(f"no reaper answers at {self.base}: {why}")
        finally:
            connection.close()
        if answer.status == _MISDIRECTED:
            self._fail(f"{self.base} answers to addresses, localhost and the names of its --listen-name only")
        if answer.status != _OK:
            self._fail(
                f"{self.base} answers {answer.status}, which no reaper of this version does", answer.status
            )
        return body

    def _parsed(self, path: str, parse: Callable[[Any], T]) -> T:
        body = self.get(path)
        try:
            return parse(
                json.loads(
                    body, parse_int=lambda t: int(_number(t)), parse_float=_number, parse_constant=_number
                )
            )
        except (ValidationError, ValueError, LookupError, TypeError, RecursionError):
            self._fail(f"{self.base} {_FOREIGN}")

    def _fail(self, message: str, status: int | None = None) -> NoReturn:
        raise NoService(message, status=status) from None


def _base(url: str) -> str:
    """Return `http://HOST:PORT`; Misconfigured for anything else."""
    with suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
        if parts.scheme in {"http", "https"} and host and parts.username is None:
            shown = f"[{host}]" if ":" in host else host
            return f"{parts.scheme}://{shown}:{port}" if port else f"{parts.scheme}://{shown}"
    message = (
        f"{url}: not the address of a service\nhint: write http://HOST:PORT, as in http://{USUAL_ADDRESS}"
    )
    raise Misconfigured(message)


def _shut_down(link: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number <= _MAX_NUMBER:
        message = "out of range"
        raise ValueError(message)
    return number


def _overview(document: Any) -> Overview:  # noqa: ANN401 (any JSON)
    if document["usage"] != FORMAT:
        raise LookupError
    # As JSON once more: in strict mode only JSON's lists may become tuples.
    return TypeAdapter(Overview).validate_json(json.dumps(document["overview"]), strict=True)


def _assessment(document: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    answer = _AssessmentAnswer.model_validate(document)
    if answer.assessment != ASSESSMENT_FORMAT:
        raise LookupError
    return answer.model_dump()


def _names(overview: Overview) -> str:
    return ", ".join(line.name for line in overview.servers) or "no server"


def _paused(row: dict[str, Any]) -> PausedGroup:
    until = parse_time(row["until"])
    return PausedGroup(
        group=Group(row["policy"], Identity(*(row[key] for key in Identity._fields))),
        at=Timestamp(0),  # not in the answer, and not needed for a decision
        until=from_datetime(until) if until else Timestamp(0),
        refilled=0,
        terminated=0,
        reason=row["reason"],
    )
