"""Webhooks: what happened, batched, in the form that Slack and its kind understand; never in a cycle's way.

Telling is putting a line into a bounded queue. Sending happens beside, and a hook that is slow or gone loses
its oldest lines, and nothing else.
"""

import asyncio
import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from reaper.telemetry import events
from reaper.telemetry.log import Log
from reaper.telemetry.plain import plain

_MOST_LINES: Final = 50
_TIMEOUT_SECONDS: Final = 5
_SLACK: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Where to send, what, and how often at most."""

    name: str
    url: str = field(repr=False)
    on: frozenset[str]
    every_seconds: float


class _NoRedirect(HTTPRedirectHandler):
    """A redirect could lead a secret URL's message anywhere."""

    def redirect_request(self, *_: object) -> None:
        """Follow none: the answer is then an error."""


@dataclass(slots=True)
class _Box:
    hook: Hook
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))
    dropped: int = 0
    next_send: float = 0.0

    def put(self, line: str) -> None:
        self.dropped += len(self.lines) == _MOST_LINES
        self.lines.append(line)

    def take(self) -> str:
        more = [f"... and {self.dropped} more"] if self.dropped else []
        text = "\n".join([*self.lines, *more])
        self.lines.clear()
        self.dropped = 0
        return text


class Notifier:
    """Tells every hook what it wants to know."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._boxes: Mapping[Hook, _Box] = {}
        self._opener = build_opener(_NoRedirect)

    def use(self, hooks: Iterable[Hook]) -> None:
        """Send to these from now on; what waits for one that stays is kept."""
        self._boxes = {hook: self._boxes.get(hook) or _Box(hook) for hook in hooks}

    def tell(self, occasion: str, server: str, what: str) -> None:
        """Leave a line for every hook that wants to hear of such an occasion."""
        for box in self._boxes.values():
            if occasion in box.hook.on:
                box.put(harmless(f"{server}: {what}"))

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, once a second, until the stop; then send the rest."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.ensure_future(stop.wait())
        while not stopped.done():
            await self._send(now=loop.time())
            await asyncio.wait([stopped], timeout=1)
        await self._send(now=math.inf)

    async def _send(self, *, now: float) -> None:
        due = [box for box in self._boxes.values() if box.lines and now >= box.next_send]
        for box in due:
            box.next_send = now + box.hook.every_seconds
        await asyncio.gather(*(self._post(box.hook, box.take()) for box in due))

    async def _post(self, hook: Hook, text: str) -> None:
        body = json.dumps({"text": text}).encode()
        request = Request(hook.url, data=body, headers={"content-type": "application/json"})  # noqa: S310 (checked: http and https)
        try:
            await asyncio.to_thread(self._open, request)
        except HTTPError as error:
            self._log.warning(events.NOTIFY_FAILED, hook=hook.name, why=f"it answers {error.code}")
        except (OSError, HTTPException, ValueError) as error:
            # Its words may repeat the URL, and the URL may be a secret.
            self._log.warning(events.NOTIFY_FAILED, hook=hook.name, why=type(error).__name__)

    def _open(self, request: Request) -> None:
        with self._opener.open(request, timeout=_TIMEOUT_SECONDS):
            pass


def harmless(text: str) -> str:
    """One line in which nothing that a client wrote becomes a link, a mention or a second line."""
    return "".join(_SLACK.get(letter, letter) for letter in plain(text))
