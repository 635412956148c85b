"""Looks at one server from time to time and keeps what it saw; it judges nobody and needs no lead."""

from contextlib import AsyncExitStack
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from reaper.config import Server
from reaper.policy.spans import SECOND, Span
from reaper.postgres.errors import Refused, ServerError
from reaper.postgres.preflight import refuse
from reaper.service.annals import Annals, Keeping
from reaper.service.bulletin import warn
from reaper.service.pause import Flag, pause, unless
from reaper.service.station import Manner, Opened, opened
from reaper.telemetry import events
from reaper.telemetry.log import Log

_LONGEST_BACKOFF: Final = 60.0
_LEASE_READINGS: Final = 3
_SHORTEST_LEASE: Final = Span(60 * SECOND)
_MISLEADING: Final = {"pooler", "visibility", "version"}
"""Through a pooler or half blind, what is kept would look true and be wrong."""
_ALL_THE_TIME: Final = float("inf")


class Recorder:
    """Keeps the history of one server until it is asked to stop."""

    def __init__(self, server: Server, keeping: Keeping, *, log: Log, stop: Flag) -> None:
        self._server = server
        self._log = log.bind(server=server.name)
        self._stop = stop
        self._keeping = keeping
        self._annals: Annals = keeping.of(server.name, self)
        self._trouble: str | None = None

    async def run(self) -> None:
        """Connect, look, and connect again when the server was lost."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ServerError),
            wait=wait_exponential_jitter(initial=1, max=_LONGEST_BACKOFF, jitter=1),
            sleep=lambda delay: pause(delay, self._stop),
            before_sleep=self._say_away,
            stop=lambda _: self._stop.is_set(),
            retry_error_callback=lambda _: None,
        )
        try:
            while not self._stop.is_set():
                await attempts(self._record)
        finally:
            await self._annals.end()

    async def _record(self) -> None:
        lease = Span(max(_LEASE_READINGS * self._keeping.every, _SHORTEST_LEASE))
        async with AsyncExitStack() as stack:
            connecting = opened(self._server, None, Manner(dry_run=True), lease=lease)
            at = await unless(self._stop, stack.enter_async_context(connecting))
            if at is None:
                return
            refuse(tuple(found for found in at.findings if found.check in _MISLEADING))
            self._say_connected(at)
            while not self._stop.is_set():
                await self._annals.look(at, room=_ALL_THE_TIME)
                await pause(self._annals.due_in, self._stop)

    def history_failed(self, why: str) -> None:
        """A look could not be taken or written."""
        self._log.error(events.HISTORY_FAILED, why=why)

    def history_resumed(self) -> None:
        """It goes on."""
        self._log.info(events.HISTORY_RESUMED)

    def _say_connected(self, at: Opened) -> None:
        self._trouble = None
        warn(at, self._log)
        self._log.info(events.SERVER_CONNECTED, at=at.link.where, postgres=at.probe.major)

    def _say_away(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        event = events.SERVER_REFUSED if isinstance(error, Refused) else events.SERVER_AWAY
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._log.error(event, why=str(error), retry=f"in {attempt.upcoming_sleep:.1f}s")
