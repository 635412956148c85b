"""The policy file in force: build new, validate whole, swap once, keep the last good."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from reaper.config import BadPolicyFile, Settings, Stamp, load, stamp
from reaper.telemetry import events
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import ReloadGauges

T = TypeVar("T")

_MOST_LOGGED: Final = 100


class PolicyReloader:
    """Holds the settings; loops read them at the start of a cycle, so a swap falls between cycles."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        gauges: ReloadGauges,
        log: Log,
        objection: Callable[[Settings], str | None] = lambda _: None,
    ) -> None:
        self._path = path
        self._objection = objection
        self._gauges = gauges
        self._log = log
        self._stamp: Stamp | None = None  # so that the first looks find what has changed since the start
        self._seen: Stamp | None = None
        # Of its own: names that cannot be resolved keep all threads of the loop's pool waiting.
        self._thread = ThreadPoolExecutor(1, "rulebook")
        self.settings = settings

    async def look(self) -> bool:
        """Reload when something has changed and rests since the last look; true when settings are new.

        What is being written in place may be cut at the end of a line, and is whole as far as one can see.
        """
        now = await self._stamped()
        before, self._seen = self._seen, now
        if now == self._stamp or now != before:
            return False
        read = await self._loaded()
        if await self._stamped() != now:
            return False  # somebody writes while we read
        return self._take(now, read)

    async def reload(self) -> bool:
        """Read the file anew, for somebody says that it is ready; a bad one is told with every mistake."""
        # Remembered before the load: what changes in between is seen by the next look.
        return self._take(await self._stamped(), await self._loaded())

    async def _stamped(self) -> Stamp:
        return await self._beside(lambda: stamp(self._path, self.settings))

    async def _loaded(self) -> Settings | BadPolicyFile:
        try:
            return await self._beside(lambda: load(self._path))
        except BadPolicyFile as bad:
            return bad

    def _take(self, now: Stamp, read: Settings | BadPolicyFile) -> bool:
        """Put it in force, or tell what is wrong with it: the last good one stays."""
        self._stamp = now
        if isinstance(read, BadPolicyFile):
            self._refuse(*map(str, read.mistakes))
            return False
        if wrong := self._objection(read):
            self._refuse(wrong)
            return False
        self._gauges.succeed()
        changed = read != self.settings
        self.settings = read
        if changed:
            rules = read.rules
            counts = {"enforcing": len(rules.enforcing), "rehearsing": len(rules.rehearsing)}
            self._log.info(events.RELOADED, rules=self._digest, **counts)
        return changed

    def _refuse(self, *mistakes: str) -> None:
        self._gauges.failed()
        told = list(mistakes[:_MOST_LOGGED])
        if len(mistakes) > _MOST_LOGGED:
            told.append(f"and {len(mistakes) - _MOST_LOGGED} more: `reaper check` tells them")
        for mistake in told:
            self._log.error(events.RELOAD_REFUSED, mistake=mistake, in_force=self._digest)

    async def _beside(self, work: Callable[[], T]) -> T:
        """In a thread, for a list of thousands of servers takes seconds, and no cycle is to wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def _digest(self) -> str:
        return self.settings.rules.digest[:12]
