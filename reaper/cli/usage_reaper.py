"""Asking a reaper that runs: its port is read, and what it says is not believed to be well formed."""

import json
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

from pydantic import TypeAdapter, ValidationError

from reaper.telemetry.views import FORMAT, Overview

_PATIENCE: Final = 6.0
_MOST_BYTES: Final = 16 * 1024 * 1024
_NO_SUCH: Final = 404


class NoReaper(Exception):
    """Nobody at that address can tell; the message says what there is."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 (whatever the library hands over)
        """Whoever answers at the reaper's port does not send us elsewhere."""


def ask_reaper(url: str, server: str | None) -> Overview:
    """What a reaper there sees of its servers, and of this one; NoReaper says why it cannot tell."""
    asked = f"{url}/usage" if server is None else f"{url}/usage?server={quote(server, safe='')}"
    try:
        body = told_at(url, asked)
    except HTTPError as error:
        if error.code == _NO_SUCH and server is not None:
            raise _stranger(url, server) from None
        raise unlike_us(url, error) from None
    return _overview(url, body)


def told_at(url: str, asked: str) -> bytes:
    """What a reaper there answers to this address; NoReaper when nobody does, HTTPError when it says no."""
    # Past any proxy: the port is on this host or in this network, and names who is connected.
    opener = build_opener(ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(asked, timeout=_PATIENCE) as answer:
            body: bytes = answer.read(_MOST_BYTES + 1)
            return body
    except HTTPError as error:
        error.close()
        raise
    except (OSError, HTTPException, ValueError) as error:
        message = f"no reaper answers at {url}: {getattr(error, 'reason', None) or error}"
        raise NoReaper(message) from None


def unlike_us(url: str, error: HTTPError) -> NoReaper:
    """Somebody is there, and does not know what was asked."""
    return NoReaper(f"{url} answers {error.code}, as no reaper of this version does")


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


def _overview(url: str, body: bytes) -> Overview:
    try:
        told = json.loads(body)
        if told["usage"] == FORMAT:
            return TypeAdapter(Overview).validate_python(told["overview"])
    except (ValidationError, ValueError, LookupError, TypeError, RecursionError):
        pass
    message = f"{url} answers, and not as a reaper of this version does"
    raise NoReaper(message)


def _stranger(url: str, server: str) -> NoReaper:
    try:
        known = ", ".join(line.name for line in ask_reaper(url, None).servers)
    except NoReaper as nobody:
        return nobody
    return NoReaper(f"the reaper at {url} looks after {known or 'no server'}, and not after {server}")
