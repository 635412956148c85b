"""A reaper that is started again when it ends, as a service manager does."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGSTOP, Signals
from typing import Final

from reaper.telemetry import events
from tests.lab.world.isolation import mount_disk, unmount
from tests.lab.world.observe import LONG, memory, signal, wait_until
from tests.lab.world.reaper import CYCLES, PORT, HttpResponse, ReaperProcess

PAGES: Final = ("", "usage", "assess")
"""The pages that people open."""
_RESTART: Final = 0.5
"""As RestartSec in the unit file."""
_POLL: Final = 0.02
_SOON: Final = 10.0
# On the same small disk as the audit log, so that its faults reach the history too.
_HISTORY: Final = ("--history", "disk/history", "--history-every", "1s")
_HANDLES_SIGNALS: Final = (
    *(events.LEADS, events.STANDS_BY),
    *(events.SERVER_UNREACHABLE, events.SERVER_DENIED),
)
"""Events that a reaper logs only after it has begun to handle signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The end of one run."""

    code: int
    expected: bool
    """True if the experiment ended it, or a fault permits its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """The memory (MiB) of one run after a round."""

    pid: int
    rss: float


class SupervisedReaper(ReaperProcess):
    """A reaper under `Restart=always`, with its audit log and history on a small disk of its own."""

    def __init__(self, folder: Path, rules: str, *options: str, own_disk: bool = False) -> None:
        audit = "disk/audit/audit.jsonl"
        super().__init__(folder, rules, *_HISTORY, *options, listen=PORT, log_level="debug", audit=audit)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.own_disk = own_disk and mount_disk(self.disk)
        self.audit.parent.mkdir()
        self.ends: list[RunEnd] = []
        self.samples: list[MemorySample] = []
        self.permitted_to_end = 0
        """The number of faults that permit its end at this moment."""
        self.cuts = 0
        """How many times lines were cut off the present audit log."""
        self._signalled: set[int] = set()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def audit_files(self) -> list[Path]:
        """Its audit log, and every file that was rotated, cut off or moved away from it."""
        return sorted(self.disk.rglob("audit.jsonl*"))

    @property
    def in_service(self) -> bool:
        return self._supervisor is not None

    @property
    def leads(self) -> bool:
        """Return True if it leads, by its last log event about it."""
        found = self.log.named(*_HANDLES_SIGNALS, events.STARTED)
        return self.running and bool(found) and found[-1].name == events.LEADS

    @property
    def cycles(self) -> int:
        return len(self.log.named(*CYCLES))

    def supervise(self) -> None:
        """Start it, and start it again whenever it ends."""
        self.start()
        self._supervisor = asyncio.create_task(self._restart_always())

    async def leave(self) -> None:
        """End the supervision and the run."""
        if self._supervisor:
            self._supervisor.cancel()
            self._supervisor = None
        if self.running:
            self.send(SIGCONT)
            await asyncio.to_thread(self.process.end)

    def dismantle(self) -> None:
        """Kill it, and keep its audit log in place of its disk."""
        self.__exit__()
        if self.own_disk:
            kept = self.folder / "kept"
            shutil.copytree(self.disk, kept)
            unmount(self.disk)
            self.disk.rmdir()
            kept.rename(self.disk)
            self.own_disk = False

    def send(self, number: Signals) -> None:
        """Send it a signal, which may end it."""
        if self.running:
            if number is not SIGCONT:
                self._signalled.add(self.pid)
            super().send(number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process meanwhile, so that it writes nothing."""
        pid = self.pid
        signal(pid, SIGSTOP)
        try:
            yield
        finally:
            signal(pid, SIGCONT)

    async def hang_up(self) -> None:
        """Send SIGHUP as soon as it handles signals."""
        with suppress(TimeoutError):
            await self.ready(within=_SOON)
            if self.running:
                super().send(SIGHUP)

    async def ready(self, *, within: float = LONG) -> None:
        """Wait until this run has reached the server, or has logged that it cannot."""
        await wait_until(lambda: self.log.named(*_HANDLES_SIGNALS, since=self.started_at), within=within)

    async def restarted(self, ends: int, *, within: float) -> None:
        """Wait until it has ended once more than this many times, and runs again."""
        await wait_until(lambda: len(self.ends) > ends and self.running, within=within)
        await self.ready()

    async def page(self, path: str) -> HttpResponse:
        """Request a page; status 0 if there is no answer."""
        return await asyncio.to_thread(self.get, f"/{path}")

    def sample(self) -> None:
        """Note the memory of this run."""
        if self.running:
            self.samples.append(MemorySample(pid=self.pid, rss=memory(self.pid).rss))

    async def _restart_always(self) -> None:
        while True:
            if not self.running:
                expected = self.permitted_to_end > 0 or self.pid in self._signalled
                self.ends.append(RunEnd(code=self.process.program.returncode, expected=expected))
                await asyncio.sleep(_RESTART)
                self.start()
            await asyncio.sleep(_POLL)
