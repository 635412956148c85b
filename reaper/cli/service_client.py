"""Which pools a reaper that runs leaves alone: what one look cannot know."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import click
from click.core import ParameterSource
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from reaper.cli.errors import Misconfigured, ServerTrouble
from reaper.cli.options import Command
from reaper.cli.output import progress
from reaper.history.snapshot import BadSnapshot, parse_snapshot
from reaper.insight.advice.evidence import Evidence, Watching
from reaper.insight.dryrun.assessment import ASSESSMENT_FORMAT
from reaper.policy.memory import Memory
from reaper.policy.refill_guard import BackOff, Group
from reaper.policy.session import Identity, Snapshot
from reaper.policy.time import SECOND, Instant, Span, from_datetime, parse_time
from reaper.service.observe import snapshot_interval
from reaper.telemetry.http.views import FORMAT, Overview

_PATIENCE: Final = 6.0
_MOST_BYTES: Final = 16 * 1024 * 1024
_MISDIRECTED: Final = 421
_FINE: Final = 200
_LARGEST: Final = 1e15
"""Counts, ages and transactions stay far below; what is computed with larger ones may have no result."""


Number = TypeVar("Number", int, float)


class NoReaper(Exception):
    """Nobody at that address can tell; the message says what there is."""


class Declined(NoReaper):
    """Somebody is there, and does not know what was asked."""

    def __init__(self, base: str, *, status: int) -> None:
        super().__init__(f"{base} answers {status}, as no reaper of this version does")
        self.status = status


def unlike_us(base: str) -> NoReaper:
    """Somebody is there, and says something that no reaper would."""
    return NoReaper(f"{base} answers, and not as a reaper of this version does")


def base_of(text: str) -> str | None:
    """`http://HOST:PORT` of what a person wrote, or nothing."""
    written = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(written)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host or parts.username is not None:
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}" if port else f"{parts.scheme}://{shown}"


def told_at(base: str, path: str, *, patience: float = _PATIENCE) -> bytes:
    """What a reaper there answers; NoReaper when nobody does, or not all of it in time."""
    # Past any proxy: the port is on this host or in this network, and names who is connected.
    connection = _connection(base, patience)
    late = threading.Event()
    try:
        connection.connect()
        with _cut_after(patience, connection.sock, late):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(_MOST_BYTES + 1)
        if late.is_set():
            raise TimeoutError  # what was cut off looks whole where nobody said how much it is
    except (OSError, HTTPException, ValueError) as error:
        said = f"no whole answer within {patience:g}s" if late.is_set() else " ".join(str(error).split())
        message = f"no reaper answers at {base}: {said or type(error).__name__}"
        raise NoReaper(message) from None
    finally:
        connection.close()
    if answer.status == _MISDIRECTED:
        message = f"{base} answers to addresses, to localhost, and to its --listen-name alone"
        raise NoReaper(message)
    if answer.status != _FINE:
        raise Declined(base, status=answer.status)
    return body


def read(body: bytes) -> Any:  # noqa: ANN401 (whatever it is)
    """JSON whose numbers can be computed with; ValueError or RecursionError for everything else."""
    return json.loads(body, parse_int=_whole, parse_float=_number, parse_constant=_number)


def _connection(base: str, patience: float) -> HTTPConnection:
    parts = urlsplit(base)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=patience)


@contextmanager
def _cut_after(seconds: float, link: socket.socket, late: threading.Event) -> Iterator[None]:
    """End a talk that takes longer: a socket's own limit begins anew with every byte that drips in."""

    def cut() -> None:
        late.set()
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)

    bite = threading.Timer(seconds, cut)
    bite.daemon = True
    bite.start()
    try:
        yield
    finally:
        bite.cancel()


def _whole(text: str) -> int:
    return _sane(int(text))


def _number(text: str) -> float:
    return _sane(float(text))


def _sane(number: Number) -> Number:
    if not 0 <= number <= _LARGEST:
        message = "no number that a reaper tells"
        raise ValueError(message)
    return number


_NO_SUCH: Final = 404


def ask_reaper(base: str, server: str | None) -> Overview:
    """What a reaper there sees of its servers, and of this one; NoReaper says why it cannot tell."""
    try:
        overview = _asked(base, server)
    except Declined as declined:
        if declined.status == _NO_SUCH and server is not None:
            raise _stranger(base, server) from None
        raise
    if overview.shown and overview.shown.usage is None:
        raise _unseen(base, overview, overview.shown.name)
    return overview


def _asked(base: str, server: str | None) -> Overview:
    path = "/usage" if server is None else f"/usage?server={quote(server, safe='')}"
    return _overview(base, told_at(base, path))


def _overview(base: str, body: bytes) -> Overview:
    try:
        told = read(body)
        if told["usage"] == FORMAT:
            # As JSON once more: there a list may be a tuple, and still no text a number.
            return TypeAdapter(Overview).validate_json(json.dumps(told["overview"]), strict=True)
    except (ValidationError, ValueError, LookupError, TypeError, RecursionError):
        pass
    raise unlike_us(base)


def _stranger(base: str, server: str) -> NoReaper:
    try:
        known = ", ".join(line.name for line in _asked(base, None).servers)
    except NoReaper as nobody:
        return nobody
    return NoReaper(f"the reaper at {base} looks after {known or 'no server'}, and not after {server}")


def _unseen(base: str, overview: Overview, server: str) -> NoReaper:
    line = next((line for line in overview.servers if line.name == server), None)
    how = ": ".join(filter(None, (line.state, line.why))) if line else "unknown"
    return NoReaper(f"the reaper at {base} has not seen {server}: {how}")


_USUAL: Final = "http://127.0.0.1:9432"


class _Told(BaseModel):
    """A part of the answer; a later reaper may tell more."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Counts(_Told):
    unused: int
    left: int
    revived: int
    unknown: int
    too_soon: int
    regret: float | None
    regret_up_to: float
    regret_if_all_who_left_were_used: float | None


class _Application(_Counts):
    application: str


class _Limit(_Told):
    key: str
    limit: str
    revived: int
    judged: int


class _Policy(_Counts):
    policy: str
    advice: str
    said: str
    acts: int
    earlier_acts: int
    servers: int
    slots_at_once: int
    session_hours: float
    held_back: dict[str, int]
    revived_after_s: float | None
    limit: _Limit | None
    applications: list[_Application]
    more_applications: int


class _Pool(_Told):
    server: str
    policy: str
    role: str | None
    database: str | None
    application: str | None
    client: str | None
    until: str | None
    reason: str


class _Verdicts(_Told):
    rehearsal: int
    policies: list[_Policy]
    left_alone: list[_Pool]


def ask_for_verdicts(url: str) -> dict[str, Any]:
    """What the reaper at this address has seen since it began."""
    base = base_of(url)
    if base is None:
        message = f"--url {url}: write http://HOST:PORT, as in {_USUAL}"
        raise Misconfigured(message)
    try:
        return _read(base, told_at(base, "/rehearsal"))
    except NoReaper as nobody:
        raise ServerTrouble(str(nobody)) from None


def _read(base: str, body: bytes) -> dict[str, Any]:
    try:
        told = _Verdicts.model_validate(read(body))
    except (ValidationError, ValueError, RecursionError):
        told = None
    if told is None or told.rehearsal != ASSESSMENT_FORMAT:
        raise unlike_us(base)
    return told.model_dump()


_FRESH_SECONDS: Final = 2.0
"""A reaper looks for its visitors once in so long."""


def ask_for_looks(url: str, server: str | None, watching: Watching, span: Span) -> Evidence:
    """Everybody at this server, as the reaper there sees them for so long."""
    base = base_of(url)
    if base is None:
        message = f"--url {url}: write http://HOST:PORT, as in http://127.0.0.1:9432"
        raise Misconfigured(message)
    try:
        return _watched(base, _named(base, server), watching, span)
    except NoReaper as nobody:
        raise ServerTrouble(str(nobody)) from None


def _watched(base: str, server: str, watching: Watching, span: Span) -> Evidence:
    pause = max(snapshot_interval(span) / SECOND, _FRESH_SECONDS)
    began = time.monotonic()
    with progress(f"asking {base}", span / SECOND) as passed:
        watching.add(_look(base, server))
        while (left := span / SECOND - (time.monotonic() - began)) > 0:
            time.sleep(min(left, pause))
            passed(min(left, pause))
            watching.add(_look(base, server))
    return watching.evidence()


def _named(base: str, server: str | None) -> str:
    """The server that is meant: the only one, when none is named."""
    overview = ask_reaper(base, server)
    if overview.shown is None:
        known = ", ".join(line.name for line in overview.servers) or "no server"
        message = f"the reaper at {base} looks after {known}: say with --server which one is meant"
        raise NoReaper(message)
    return overview.shown.name


def _look(base: str, server: str) -> Snapshot:
    try:
        return parse_snapshot(told_at(base, f"/snapshot?server={quote(server, safe='')}"), file=base)
    except BadSnapshot:
        raise unlike_us(base) from None


def url_option(command: Command) -> Command:
    """`--url URL`."""
    return click.option(
        "--url",
        metavar="URL",
        envvar="REAPER_URL",
        show_envvar=True,
        help="The reaper that runs, such as http://127.0.0.1:9432: it knows which pools it leaves alone.",
    )(command)


def remembered(seen: Snapshot, url: str | None) -> Memory:
    """Everybody was seen before; and what the reaper at this address leaves alone is left alone."""
    memory = Memory.of(seen)
    if not url:
        return memory
    # Loaded where it is needed: nobody is asked as a rule.

    try:
        told = ask_for_verdicts(url)["left_alone"]
    except ServerTrouble as nobody:
        if click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE:
            raise
        nobody.show()  # the environment is for other commands too: this one can do without
        return memory
    pools = [each for each in told if each["server"] == seen.server]
    return memory.leaving_alone(
        {_group(each): _alone(each) for each in pools if each["server"] == seen.server}
    )


def _group(pool: dict[str, Any]) -> Group:
    return Group(pool["policy"], Identity(*(pool[key] for key in Identity._fields)))


def _alone(pool: dict[str, Any]) -> BackOff:
    until = parse_time(pool["until"])
    return BackOff(from_datetime(until) if until else Instant(0), pool["reason"])
