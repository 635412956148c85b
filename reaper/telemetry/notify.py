"""Webhooks: what happened, batched, in the form that Slack and its kind understand; never in a cycle's way.

Telling is putting a line into a bounded box. Sending happens beside, each hook for itself: one that is slow
or gone loses its oldest lines, and nothing else. What could not be delivered stays in the box for the next
time, so a message may arrive twice when an answer got lost, rather than never.
"""

import asyncio
import json
import math
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import (
    AbstractHTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    build_opener,
)

from reaper.policy.text import plain
from reaper.telemetry import events
from reaper.telemetry.log import Log

_MOST_LINES: Final = 50
_LONGEST_LINE: Final = 500
_TIMEOUT_SECONDS: Final = 5.0
_BEAT_SECONDS: Final = 1.0

_FENCE: Final = "```"
# A mention, a link or a command begins with one of the first; a backtick would end the block of code.
_LETTERS: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Where to send, what, and how often at most."""

    name: str
    url: str = field(repr=False)
    on: frozenset[str]
    every_seconds: float


@dataclass(slots=True)
class _Box:
    """The lines that wait for one hook."""

    hook: Hook
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))
    dropped: int = 0
    next_send: float = 0.0
    sending: asyncio.Task[None] | None = None
    ended: threading.Event | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the last message is still on its way, or has been given up and hangs."""
        return bool(self.sending or (self.ended and not self.ended.is_set()))

    def put(self, line: str) -> bool:
        """Take a line; false when that costs the oldest."""
        is_full = len(self.lines) == _MOST_LINES
        self.dropped += is_full
        self.lines.append(line)
        return not is_full

    def take(self) -> tuple[list[str], int]:
        taken = list(self.lines), self.dropped
        self.lines.clear()
        self.dropped = 0
        return taken

    def put_back(self, lines: list[str], dropped: int) -> int:
        """Keep what could not be delivered before what came meanwhile; how many lines that costs."""
        room = _MOST_LINES - len(self.lines)
        kept = lines[len(lines) - min(room, len(lines)) :]
        self.lines.extendleft(reversed(kept))
        self.dropped += dropped + len(lines) - len(kept)
        return len(lines) - len(kept)


class Notifier:
    """Tells every hook what it wants to know."""

    def __init__(
        self,
        *,
        log: Log,
        counts: Counter[tuple[str, str]] | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._log = log
        self._counts = Counter[tuple[str, str]]() if counts is None else counts
        self._timeout = timeout
        self._boxes: Mapping[Hook, _Box] = {}
        self._opener: OpenerDirector | None = None

    def use(self, hooks: Iterable[Hook]) -> None:
        """Send to these from now on; what waits for one that stays is kept."""
        self._boxes = {hook: self._boxes.get(hook) or _Box(hook) for hook in hooks}
        names = {hook.name for hook in self._boxes}
        for name, result in [key for key in self._counts if key[0] not in names]:
            del self._counts[name, result]
        for name in names:
            for result in ("sent", "failed", "dropped"):
                self._counts[name, result] += 0

    def tell(self, occasion: str, server: str, what: str) -> None:
        """Leave a line for every hook that wants to hear of such an occasion."""
        for box in self._boxes.values():
            if occasion in box.hook.on and not box.put(harmless(f"{server}: {what}")):
                self._count(box, "dropped")

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, once a second, until the stop; then send the rest."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.ensure_future(stop.wait())
        while not stopped.done():
            self.send(now=loop.time())
            await asyncio.wait([stopped], timeout=_BEAT_SECONDS)
        await self.idle()
        self.send(now=math.inf)
        await self.idle()

    def send(self, *, now: float) -> None:
        """Start sending to every webhook that is due and has no message in progress."""
        for box in self._boxes.values():
            if box.lines and now >= box.next_send and not box.is_busy:
                box.next_send = now + box.hook.every_seconds
                box.sending = asyncio.create_task(self._deliver(box), name=f"notify {box.hook.name}")

    async def idle(self) -> None:
        """Wait until nothing is on its way."""
        await asyncio.gather(*(box.sending for box in self._boxes.values() if box.sending))

    async def _deliver(self, box: _Box) -> None:
        lines, dropped = box.take()
        try:
            why = await self._post(box, _text(lines, dropped))
        finally:
            box.sending = None
        self._count(box, "failed" if why else "sent")
        if why:
            self._count(box, "dropped", box.put_back(lines, dropped))
            self._log.warning(events.NOTIFY_FAILED, hook=box.hook.name, why=why)

    def _count(self, box: _Box, result: str, count: int = 1) -> None:
        # One that has left by reload meanwhile leaves nothing behind.
        if box.hook in self._boxes:
            self._counts[box.hook.name, result] += count

    async def _post(self, box: _Box, text: str) -> str | None:
        """Why it could not be delivered, without a word that might repeat the URL; or nothing."""
        headers = {"content-type": "application/json", "user-agent": "pg-reaper"}
        request = Request(box.hook.url, data=json.dumps({"text": text}).encode(), headers=headers)  # noqa: S310 (checked: http and https)
        try:
            # For all of it, while urllib's own limit is one for each byte that drips in.
            async with asyncio.timeout(self._timeout):
                box.ended, done = _beside(lambda: self._open(request))
                await done
        except HTTPError as error:
            error.close()
            return f"it answers {error.code}"
        except URLError as error:
            return type(error.reason).__name__
        except (OSError, HTTPException, ValueError) as error:
            return type(error).__name__
        return None

    def _open(self, request: Request) -> None:
        if self._opener is None:
            self._opener = opener()
        with self._opener.open(request, timeout=self._timeout):
            pass


class _NoRedirect(HTTPRedirectHandler):
    """A redirect could lead a secret URL's message anywhere."""

    def redirect_request(self, *_: object) -> None:
        """Follow none: the answer is then an error."""


class _Trusting(HTTPSHandler):
    """Believes the certificates that the host does, and loads them with the first message that needs them."""

    def __init__(self) -> None:
        AbstractHTTPHandler.__init__(self)  # the other one loads them at once, and they take 2 MB

    def https_open(self, req: Request) -> HTTPResponse:
        """Send it to a host that can prove who it is."""
        return self.do_open(HTTPSConnection, req, context=trust())


@cache
def trust() -> ssl.SSLContext:
    """The certificates that this host believes."""
    return ssl.create_default_context()


def opener() -> OpenerDirector:
    """An opener for webhooks: no redirects, verified certificates, https_proxy honored."""
    return build_opener(_NoRedirect, _Trusting)


def harmless(text: str) -> str:
    """One short line in which nothing that a client wrote becomes a link, a mention or a second line."""
    line = plain(text)
    shown = line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}\N{HORIZONTAL ELLIPSIS}"
    return shown.translate(_LETTERS)


def _text(lines: list[str], dropped: int) -> str:
    """The message: a block of code, in which @here is a word like any other."""
    more = [f"... and {dropped} more before these"] if dropped else []
    return "\n".join([_FENCE, *more, *lines, _FENCE])


def _beside(work: Callable[[], None]) -> tuple[threading.Event, asyncio.Future[None]]:
    """Do it in a thread of its own, that may be abandoned: the pool's are waited for at the end."""
    loop = asyncio.get_running_loop()
    ended = threading.Event()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as failed:  # noqa: BLE001 (handed over, not swallowed)
            error = failed
        ended.set()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="notify", daemon=True).start()
    return ended, done
