"""A reaper that is started again when it ends, as a service manager does."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGSTOP, Signals
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from reaper.telemetry import events
from tests.lab.world.isolation import mount_disk, unmount
from tests.lab.world.log import LogEvent, wait_until
from tests.lab.world.observe import HttpPort, Response, cpu_seconds, memory, signal
from tests.lab.world.reaper import CYCLES, ReaperProcess

PAGES: Final = ("", "usage", "rehearsal")
"""The pages that people open."""
_RESTART: Final = 0.5
"""As RestartSec in the unit file."""
_POLL: Final = 0.02
_SOON: Final = 10.0
_DISK_SIZE: Final = "64m"
_OPTIONS: Final = (
    *("--listen", "127.0.0.1:0"),
    # On the same small disk as the audit log, so that its faults reach the history too.
    *("--history", "disk/history", "--history-every", "1s"),
)
_HANDLES_SIGNALS: Final = (
    events.LEADS,
    events.STANDS_BY,
    events.SERVER_UNREACHABLE,
    events.SERVER_DENIED,
)
"""Events that a reaper logs only after it has begun to handle signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of one run."""

    code: int
    expected: bool
    """Whether the experiment ended it, or a fault permits its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The memory (MiB), CPU time and cycles of one run so far."""

    pid: int
    rss: float
    cpu: float
    cycles: float


class SupervisedReaper(ReaperProcess):
    """A reaper under `Restart=always`, with its audit log and history on a small disk of its own."""

    def __init__(self, folder: Path, rules: str, *options: str, own_disk: bool = False) -> None:
        audit = "disk/audit/audit.jsonl"
        super().__init__(folder, rules, *_OPTIONS, *options, log_level="debug", audit=audit)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.own_disk = own_disk and mount_disk(self.disk, _DISK_SIZE)
        self.audit.parent.mkdir()
        self.ends: list[End] = []
        self.samples: list[Sample] = []
        self.started_at = 0.0
        self.permitted_to_end = 0
        """How many faults permit its end at this moment."""
        self.cuts = 0
        """How often lines were cut off the audit log that is there."""
        self._signalled: set[int] = set()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def audit_files(self) -> list[Path]:
        """Its audit log, and whatever was rotated, cut off or moved away from it."""
        return sorted(self.disk.rglob("audit.jsonl*"))

    @property
    def in_service(self) -> bool:
        return self._supervisor is not None

    @property
    def leads(self) -> bool:
        """Whether it leads, by its last log event about it."""
        names = (*_HANDLES_SIGNALS, events.STARTED)
        found = self.log.named(*names)
        return self.running and bool(found) and found[-1].name == events.LEADS

    @property
    def cycles(self) -> int:
        return len(self.log.named(*CYCLES))

    def supervise(self) -> None:
        """Start it, and start it again whenever it ends."""
        self._begin()
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

    async def ready(self, *, within: float = 60.0) -> None:
        """Wait until this run has reached the server, or knows that it cannot."""
        await self.logged(*_HANDLES_SIGNALS, since=self.started_at, within=within)

    async def logged(self, *names: str, since: float = 0.0, within: float = 60.0) -> LogEvent:
        """The first event with one of these names since then; a TimeoutError if it does not come."""
        found = await wait_until(lambda: self.log.named(*names, since=since), within=within)
        return found[0]

    async def get(self, path: str) -> Response:
        """Request a page; status 0 if there is no answer."""
        serving = self.log.named(events.SERVES)
        if not serving:
            return Response(0, "", 0.0)
        return await asyncio.to_thread(HttpPort(at=serving[-1].fields["at"]).get, f"/{path}")

    async def sample(self) -> None:
        """Record the memory, CPU and cycles of this run, if it answers."""
        answer = await self.get("metrics")
        if answer.status == 200 and self.running:
            pid, cycles = self.pid, _sum(answer.text, "reaper_cycle_seconds_count")
            self.samples.append(Sample(pid=pid, rss=memory(pid).rss, cpu=cpu_seconds(pid), cycles=cycles))

    def _begin(self) -> None:
        self.started_at = time.time()
        self.start()

    async def _restart_always(self) -> None:
        while True:
            if not self.running:
                expected = self.permitted_to_end > 0 or self.pid in self._signalled
                self.ends.append(End(code=self.process.program.returncode, expected=expected))
                await asyncio.sleep(_RESTART)
                self._begin()
            await asyncio.sleep(_POLL)


def _sum(page: str, name: str) -> float:
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return sum(float(sample.value) for sample in samples if sample.name == name)
