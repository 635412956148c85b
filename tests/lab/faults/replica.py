"""One reaper of a campaign: the real command, started again when it ends, as a service manager would."""

import asyncio
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGHUP, Signals
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from reaper.telemetry import events
from tests.lab.benchmarks.ground import CYCLED, Daemon
from tests.lab.benchmarks.journal import Event
from tests.lab.benchmarks.proc import cpu_seconds, memory

from .patience import until
from .place import mount, unmount

RESTART_SECONDS: Final = 0.5
"""As RestartSec of the unit."""
_POLL: Final = 0.02
_DISK: Final = "disk"
_RECORD: Final = "record"
_DISK_SIZE: Final = "size=64m"
_SOON: Final = 10.0
_HEEDS: Final = (events.LEADS, events.STANDS_BY, events.SERVER_UNREACHABLE, events.SERVER_DENIED)
"""What it says only after it has begun to heed signals."""
PAGES: Final = ("", "usage", "rehearsal")
"""What people look at."""
_HISTORY: Final = "history"
_OPTIONS: Final = (
    *("--listen", "127.0.0.1:0"),
    # On the small disk too, so that what befalls the record befalls the history.
    *("--history", f"{_DISK}/{_HISTORY}", "--history-every", "1s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of one life."""

    at: float
    code: int
    expected: bool
    """Whether the campaign had ended it, or a fault excuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one life holds and has used at one moment."""

    pid: int
    rss: float
    """MiB."""
    cpu: float
    """Seconds."""
    cycles: float


class Replica:
    """A reaper under supervision: `Restart=always`."""

    def __init__(self, folder: Path, policies: str, *options: str, own_disk: bool = False) -> None:
        self.folder = folder
        record = f"{_DISK}/{_RECORD}/audit.jsonl"
        self.daemon = Daemon(folder, policies, *_OPTIONS, *options, level="debug", record=record)
        self.disk.mkdir()
        self._own_disk = own_disk and mount("-t", "tmpfs", "-o", _DISK_SIZE, "tmpfs", str(self.disk))
        self.record.parent.mkdir()
        self.ends: list[End] = []
        self.samples: list[Sample] = []
        self.started_at = 0.0
        """When this life began, by the clock of this host."""
        self.excused = 0
        """How many faults excuse its end at this moment."""
        self.cuts = 0
        """How often something was cut off the end of the record that is there."""
        self._sent: set[int] = set()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def disk(self) -> Path:
        """Where the folder of its record is; a small disk of its own where one can be had."""
        return self.folder / _DISK

    @property
    def record(self) -> Path:
        """Its record."""
        return self.disk / _RECORD / "audit.jsonl"

    @property
    def history(self) -> Path:
        """The folder of its history."""
        return self.disk / _HISTORY

    @property
    def records(self) -> list[Path]:
        """Its record and whatever was rotated, cut off or moved away from it."""
        return sorted(self.disk.rglob("audit.jsonl*"))

    @property
    def pid(self) -> int:
        """The pid of this life."""
        return self.daemon.pid

    @property
    def environment(self) -> dict[str, str]:
        """What its next life will know of."""
        return self.daemon._reaper.environment

    def start(self) -> None:
        """Begin the first life, and the supervision."""
        self._begin()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervisor of {self.name}")

    async def stop(self) -> None:
        """End supervision, and the life politely."""
        if self._supervisor:
            self._supervisor.cancel()
            self._supervisor = None
        if self.daemon.running and self.daemon.life:
            self.send(SIGCONT)
            await asyncio.to_thread(self.daemon.life.end)

    def send(self, number: Signals) -> None:
        """Send this life a signal; its end, if it comes of that, is expected."""
        if self.daemon.running and self.daemon.life:
            if number is not SIGCONT:
                self._sent.add(self.pid)
            self.daemon.life.send(number)

    async def hang_up(self) -> None:
        """Ask it to read and open everything anew, as soon as it heeds signals; nothing when it is down."""
        with suppress(TimeoutError):
            await self.logged(*_HEEDS, since=self.started_at, within=_SOON)
            if self.daemon.running and self.daemon.life:
                self.daemon.life.send(SIGHUP)

    def dismantle(self) -> None:
        """End it for good, and keep its record where its disk was."""
        self.daemon.__exit__()
        if self._own_disk:
            kept = self.folder / "kept"
            shutil.copytree(self.disk, kept)
            unmount(self.disk)
            self.disk.rmdir()
            kept.rename(self.disk)
            self._own_disk = False

    async def logged(self, *names: str, since: float = 0.0, within: float = 60.0) -> Event:
        """The first event of these names since then; a TimeoutError when it does not come."""
        await until(lambda: self.daemon.journal.named(*names, since=since), within=within)
        return self.daemon.journal.named(*names, since=since)[0]

    @property
    def leads(self) -> bool:
        """Whether it says that it leads, at the last word."""
        words = (
            events.LEADS,
            events.STANDS_BY,
            events.SERVER_UNREACHABLE,
            events.SERVER_DENIED,
            events.STARTED,
        )
        said = self.daemon.journal.named(*words)
        return self.daemon.running and bool(said) and said[-1].name == events.LEADS

    async def up(self) -> None:
        """Wait until this life has met the server, or has found that it cannot."""
        await self.logged(*_HEEDS, since=self.started_at)

    @property
    def in_service(self) -> bool:
        """Whether it is meant to run."""
        return self._supervisor is not None

    async def page(self, path: str) -> tuple[int, str]:
        """Get a page; status 0 when there is nobody to answer."""
        return await asyncio.to_thread(self._page, path)

    async def sample(self) -> None:
        """Note what this life holds and has used; nothing when it does not answer."""
        status, body = await self.page("metrics")
        if status == 200 and self.daemon.running:
            cycles = _number(body, "reaper_cycle_seconds_count")
            pid = self.pid
            self.samples.append(Sample(pid=pid, rss=memory(pid).rss, cpu=cpu_seconds(pid), cycles=cycles))

    def cycles(self) -> int:
        """How many cycles it has logged."""
        return len(self.daemon.journal.named(*CYCLED))

    def _page(self, path: str) -> tuple[int, str]:
        said = self.daemon.journal.named(events.SERVES)
        if not said:
            return 0, ""
        try:
            with urlopen(f"http://{said[-1].fields['at']}/{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def _begin(self) -> None:
        self.started_at = time.time()
        self.daemon.start()

    async def _supervise(self) -> None:
        while True:
            life = self.daemon.life
            if life and not life.running:
                expected = self.excused > 0 or life.pid in self._sent
                self.ends.append(End(at=time.time(), code=life.program.returncode, expected=expected))
                await asyncio.sleep(RESTART_SECONDS)
                self._begin()
            await asyncio.sleep(_POLL)


def _number(body: str, name: str) -> float:
    samples = (sample for family in text_string_to_metric_families(body) for sample in family.samples)
    return sum(float(sample.value) for sample in samples if sample.name == name)
