"""The reaper of the demo: the service's own cycle on the service's own connection, over and over.

Between two cycles it takes up another policy file, with an empty memory as after a restart.
"""

import asyncio
from collections.abc import Callable
from itertools import count

from reaper.audit.ledger import Ledger
from reaper.config import Server, Settings
from reaper.policy.deadline import rest_after
from reaper.policy.memory import Memory
from reaper.policy.time import seconds
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection, RunOptions, station
from reaper.service.cycle import Cycle, Station, run_cycle
from reaper.service.pause import Flag, pause


class Patrol:
    """Runs cycles until it is told to finish."""

    def __init__(
        self,
        server: Server,
        at: OpenConnection,
        settings: Settings,
        *,
        ledger: Ledger,
        saw: Callable[[Cycle], None],
    ) -> None:
        self._server = server
        self._at = at
        self._settings = settings
        self._ledger = ledger
        self._saw = saw
        self._numbers = count(1)
        self._finish = Flag()
        self._finished = asyncio.Event()

    def adopt(self, settings: Settings) -> None:
        """Go by these settings from the next cycle on."""
        self._settings = settings

    async def run(self) -> None:
        """Cycle at every deadline."""
        try:
            while not self._finish.is_set():
                await self._by(self._settings)
        finally:
            self._finished.set()

    async def finish(self) -> None:
        """End after the termination at hand."""
        self._finish.set()
        await self._finished.wait()

    async def _by(self, settings: Settings) -> None:
        post = station(self._server, self._at, settings.rules, RunOptions(), self._ledger, clock=ClockWatch())
        memory = Memory()
        while settings is self._settings and not self._finish.is_set():
            cycle = await self._cycle(post, settings, memory)
            memory = cycle.remembered
            rest = rest_after(
                cycle.snapshot, settings.rules, interval=settings.interval, precision=settings.precision
            )
            await pause(seconds(rest), self._finish)

    async def _cycle(self, post: Station, settings: Settings, memory: Memory) -> Cycle:
        name = str(next(self._numbers))
        cycle = await run_cycle(post, name, rules=settings.rules, memory=memory, stopping=self._finish.is_set)
        if cycle.record_failed:
            raise cycle.record_failed
        self._saw(cycle)
        return cycle
