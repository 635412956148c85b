"""Advice by what a reaper sees that runs: it is inside when the slots are full."""

import time
from typing import Final
from urllib.parse import quote

from reaper.cli.exits import Misconfigured, ServerTrouble
from reaper.cli.progress import progress
from reaper.cli.reaper_port import NoReaper, base_of, told_at, unlike_us
from reaper.cli.usage_reaper import ask_reaper
from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.watching import Watching
from reaper.policy.session import Snapshot
from reaper.policy.spans import SECOND, Span
from reaper.record.snapshot_file import BadSnapshot
from reaper.record.snapshots import parse_snapshot
from reaper.service.looking import pause_between

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
    pause = max(pause_between(span) / SECOND, _FRESH_SECONDS)
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
