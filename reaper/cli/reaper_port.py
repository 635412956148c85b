"""Reading the port of a reaper that runs: whoever answers there has a few seconds for all of it.

What comes is not believed to be well formed, and leads nowhere else.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

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
