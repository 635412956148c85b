"""The policy file in force: build new, validate whole, swap once, keep the last good."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from reaper.config import BadPolicyFile, Settings, Stamp, load, stamp
from reaper.telemetry import events
from reaper.telemetry.log import Log
from reaper.telemetry.metrics import ReloadGauges

T = TypeVar("T")

_MOST_LOGGED: Final = 100


class Rulebook:
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
        self._stamp: Stamp | None = None  # so that the first look finds what has changed since the start
        # Of its own: names that cannot be resolved keep all threads of the loop's pool waiting.
        self._thread = ThreadPoolExecutor(1, "rulebook")
        self.settings = settings

    async def look(self) -> bool:
        """Reload if the content has changed since the last look; true when new settings are in force."""
        now = await self._beside(lambda: stamp(self._path, self.settings))
        return now != self._stamp and await self._read(now)

    async def reload(self) -> bool:
        """Read the file anew; a bad one is told with every mistake, and the last good one stays in force."""
        return await self._read(await self._beside(lambda: stamp(self._path, self.settings)))

    async def _read(self, now: Stamp) -> bool:
        # Remembered before the load: what changes in between is seen by the next look.
        self._stamp = now
        try:
            settings = await self._beside(lambda: load(self._path))
        except BadPolicyFile as bad:
            self._gauges.failed()
            told = list(map(str, bad.mistakes[:_MOST_LOGGED]))
            if len(bad.mistakes) > _MOST_LOGGED:
                told.append(f"and {len(bad.mistakes) - _MOST_LOGGED} more: `reaper check` tells them")
            for mistake in told:
                self._log.error(events.RELOAD_REFUSED, mistake=mistake, in_force=self._digest)
            return False
        if wrong := self._objection(settings):
            self._gauges.failed()
            self._log.error(events.RELOAD_REFUSED, mistake=wrong, in_force=self._digest)
            return False
        self._gauges.succeed()
        changed = settings != self.settings
        self.settings = settings
        if changed:
            rules = settings.rules
            counts = {"enforcing": len(rules.enforcing), "rehearsing": len(rules.rehearsing)}
            self._log.info(events.RELOADED, rules=self._digest, **counts)
        return changed

    async def _beside(self, work: Callable[[], T]) -> T:
        """In a thread, for a list of thousands of servers takes seconds, and no cycle is to wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def _digest(self) -> str:
        return self.settings.rules.digest[:12]
