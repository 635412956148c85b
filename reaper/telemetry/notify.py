"""Webhooks: batched messages in Slack's JSON, which never delay a cycle.

A line is put into a bounded queue, and each webhook has its own: a slow one loses only its oldest lines. A
message that failed is sent again with the next one; it may arrive twice if an answer was lost.
"""

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from reaper.policy.text import printable
from reaper.telemetry import events
from reaper.telemetry.log import Log

MAX_LINES: Final = 50
MAX_LINE: Final = 500
_TIMEOUT_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 1.0
_FENCE: Final = "```"
# &, < and > begin a mention, a link or a command; a backtick would end the block of code.
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A webhook, the occasions that it is for, and the time between two messages."""

    name: str
    url: str = field(repr=False)
    on: frozenset[str]
    every_seconds: float


@dataclass(slots=True)
class _HookQueue:
    """The lines that wait for one webhook."""

    hook: Hook
    lines: list[str] = field(default_factory=list)
    dropped: int = 0
    next_send: float = 0.0
    sending: asyncio.Task[None] | None = None
    request: "Future[None] | None" = None

    @property
    def busy(self) -> bool:
        """True while a message is being sent, or a request that was given up still hangs."""
        return bool(self.sending or (self.request and not self.request.done()))

    def put(self, *lines: str, first: bool = False) -> int:
        """Add lines, or return those of a failed message; return the number of old ones that were dropped."""
        every = [*lines, *self.lines] if first else [*self.lines, *lines]
        self.lines = every[-MAX_LINES:]
        lost = len(every) - len(self.lines)
        self.dropped += lost
        return lost


class Notifier:
    """Sends lines to the webhooks that are for their occasion."""

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
        self._queues: Mapping[Hook, _HookQueue] = {}
        self._opener: OpenerDirector | None = None

    def use(self, hooks: Iterable[Hook]) -> None:
        """Send to these from now on; a webhook that stays keeps its lines."""
        self._queues = {hook: self._queues.get(hook) or _HookQueue(hook) for hook in hooks}
        names = {hook.name for hook in self._queues}
        for key in [key for key in self._counts if key[0] not in names]:
            del self._counts[key]
        for name in names:
            for result in ("sent", "failed", "dropped"):
                self._counts[name, result] += 0

    def notify(self, occasion: str, server: str, text: str) -> None:
        """Queue a line for every webhook that is for this occasion."""
        for queue in self._queues.values():
            if occasion in queue.hook.on:
                self._count(queue, "dropped", queue.put(escaped(f"{server}: {text}")))

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, once a second, until the stop; then send the rest."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.ensure_future(stop.wait())
        while not stopped.done():
            self.send(now=loop.time())
            await asyncio.wait([stopped], timeout=_TICK_SECONDS)
        await self.sent()
        self.send(now=math.inf)
        await self.sent()

    def send(self, *, now: float) -> None:
        """Start sending to every webhook that is due and has no message in progress."""
        for queue in self._queues.values():
            if queue.lines and now >= queue.next_send and not queue.busy:
                queue.next_send = now + queue.hook.every_seconds
                queue.sending = asyncio.create_task(self._deliver(queue), name=f"notify {queue.hook.name}")

    async def sent(self) -> None:
        """Wait until no message is in progress."""
        await asyncio.gather(*(queue.sending for queue in self._queues.values() if queue.sending))

    async def _deliver(self, queue: _HookQueue) -> None:
        lines, dropped = queue.lines, queue.dropped
        queue.lines, queue.dropped = [], 0
        try:
            why = await self._post(queue, _message(lines, dropped))
        finally:
            queue.sending = None
        self._count(queue, "failed" if why else "sent")
        if why:
            queue.dropped += dropped
            self._count(queue, "dropped", queue.put(*lines, first=True))
            self._log.warning(events.NOTIFY_FAILED, hook=queue.hook.name, why=why)

    def _count(self, queue: _HookQueue, result: str, count: int = 1) -> None:
        # A webhook that a reload removed meanwhile must not appear in the metrics again.
        if queue.hook in self._queues:
            self._counts[queue.hook.name, result] += count

    async def _post(self, queue: _HookQueue, text: str) -> str | None:
        """Return why the message failed, in words that cannot contain the URL; None if it was sent."""
        headers = {"content-type": "application/json", "user-agent": "pg-reaper"}
        request = Request(queue.hook.url, data=json.dumps({"text": text}).encode(), headers=headers)  # noqa: S310 (checked: http and https)
        try:
            # For the whole request: urllib's timeout starts again with every byte that arrives.
            async with asyncio.timeout(self._timeout):
                queue.request = _in_thread(lambda: self._open(request))
                await asyncio.wrap_future(queue.request)
        except HTTPError as error:
            error.close()
            return f"it answers {error.code}"
        except URLError as error:
            return type(error.reason).__name__
        except (OSError, HTTPException, ValueError) as error:
            return type(error).__name__
        return None

    def _open(self, request: Request) -> None:
        # No redirects, verified certificates, the proxy of the environment; made at its first use.
        self._opener = self._opener or build_opener(_NoRedirect)
        with self._opener.open(request, timeout=self._timeout):
            pass


class _NoRedirect(HTTPRedirectHandler):
    """Treats a redirect as an error: it could send the message anywhere."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def escaped(text: str) -> str:
    """One short line in which no text of a client becomes a link, a mention or a second line."""
    line = printable(text)
    shown = line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}\N{HORIZONTAL ELLIPSIS}"
    return shown.translate(_ESCAPES)


def _message(lines: list[str], dropped: int) -> str:
    # In a block of code, @here is a word like any other.
    more = [f"... and {dropped} more before these"] if dropped else []
    return "\n".join([_FENCE, *more, *lines, _FENCE])


def _in_thread(work: Callable[[], None]) -> "Future[None]":
    """Run in a daemon thread: the process waits for the threads of a pool when it ends, even if one hangs."""
    future = Future[None]()
    # The timeout cancels only the waiting: the thread sets a result later, which a cancelled future rejects.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except Exception as error:  # noqa: BLE001 (raised where it is awaited)
            future.set_exception(error)

    threading.Thread(target=run, name="notify", daemon=True).start()
    return future
