"""The policy file in force: read the new file whole, validate it, swap once, keep the last good one."""

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

_LOGGED_MISTAKES: Final = 100


class PolicyReloader:
    """Holds the settings in force. Loops read them when a cycle starts, so a swap falls between cycles."""

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
        self._stamp: Stamp | None = None  # None: the first check finds what has changed since the start
        self._last_check: Stamp | None = None
        # A thread of its own: names that cannot be resolved may occupy every thread of the loop's pool.
        self._thread = ThreadPoolExecutor(1, "policy-reload")
        self.settings = settings

    async def reload_if_changed(self) -> bool:
        """Reload if the files differ from those in force and are unchanged since the last check.

        Returns True if the settings are new. A file that is being written may look complete at any line end;
        two equal checks with a load in between are the best evidence that the writer has finished.
        """
        now = await self._read_stamp()
        before, self._last_check = self._last_check, now
        if now == self._stamp or now != before:
            return False
        loaded = await self._load()
        if await self._read_stamp() != now:
            return False  # it was written to while we read it
        return self._apply(now, loaded)

    async def reload(self) -> bool:
        """Reload now (SIGHUP); return True if the settings are new."""
        # The stamp is taken before the load, so a change in between is seen by the next check.
        return self._apply(await self._read_stamp(), await self._load())

    async def _read_stamp(self) -> Stamp:
        return await self._in_thread(lambda: stamp(self._path, self.settings))

    async def _load(self) -> Settings | BadPolicyFile:
        try:
            return await self._in_thread(lambda: load(self._path))
        except BadPolicyFile as bad:
            return bad

    def _apply(self, now: Stamp, loaded: Settings | BadPolicyFile) -> bool:
        """Put new settings in force, or log every mistake and keep the last good ones."""
        self._stamp = now  # of a bad file too: its mistakes are logged once and not at every check
        if isinstance(loaded, BadPolicyFile):
            self._refuse(*map(str, loaded.mistakes))
            return False
        if objection := self._objection(loaded):
            self._refuse(objection)
            return False
        self._gauges.succeed()
        changed = loaded != self.settings
        self.settings = loaded
        if changed:
            rules = loaded.rules
            counts = {"enforcing": len(rules.enforcing), "dry_running": len(rules.dry_running)}
            self._log.info(events.RELOADED, rules=self._digest, **counts)
        return changed

    def _refuse(self, *mistakes: str) -> None:
        self._gauges.failed()
        logged = list(mistakes[:_LOGGED_MISTAKES])
        if len(mistakes) > _LOGGED_MISTAKES:
            logged.append(f"and {len(mistakes) - _LOGGED_MISTAKES} more: `reaper check` lists them")
        for mistake in logged:
            self._log.error(events.RELOAD_REFUSED, mistake=mistake, in_force=self._digest)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run file access in a thread: reading thousands of servers takes seconds."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def _digest(self) -> str:
        return self.settings.rules.digest[:12]
