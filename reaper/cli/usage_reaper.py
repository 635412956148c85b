"""Asking a reaper that runs who holds the connections."""

import json
from typing import Final
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from reaper.cli.reaper_port import Declined, NoReaper, read, told_at, unlike_us
from reaper.telemetry.views import FORMAT, Overview

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
