"""A day of cycles in a row, with the service's own parts, at a server whose clients invent names."""

import asyncio
import io
import tempfile
from datetime import UTC, datetime
from os import getpid
from pathlib import Path
from typing import Final

from reaper import __version__
from reaper.audit.file import FileSink
from reaper.audit.ledger import Author, Ledger
from reaper.config import Occasion, read
from reaper.demo.server import free_ports
from reaper.policy.deadline import rest_after
from reaper.policy.memory import Memory
from reaper.service.clock import ClockWatch
from reaper.service.cycle import Hands, Station, run_cycle
from reaper.service.reporter import Reporter
from reaper.telemetry.log import LogFormat, LogLevel, make_log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.notify import Hook, Notifier
from tests.postgres.sandbox import Role
from tests.system.policies import leaked, policy_file

from .names import InventedNames
from .proc import memory
from .table import figure, table

_POLICIES: Final = 20
_WARM: Final = 20
"""After this part of it all that is bounded is full."""
_QUARTERS: Final = 4
_A_SCRAPE: Final = 3
_INTERVAL: Final = 10.0


async def day(*, cycles: int, newcomers: int) -> str:
    """RSS of this process along the day."""
    shown = {0, cycles // _WARM, *(cycles * quarter // _QUARTERS for quarter in range(1, _QUARTERS + 1))}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(Path(folder) / "audit.jsonl", newcomers=newcomers)
        stop = asyncio.Event()
        sending = asyncio.ensure_future(work.notifier.run(stop))
        for number in range(cycles + 1):
            await work.cycle(str(number))
            if number % _A_SCRAPE == 0:
                work.metrics.exposition()
                await asyncio.sleep(0)
            if number in shown:
                rss = figure(memory(getpid()).rss, "MiB", 1)
                rows.append((f"{number:,}", f"{work.server.names:,}", f"{work.ended:,}", rss))
        stop.set()
        await sending
        work.ledger.close()
    return table(
        f"A day of cycles, {_INTERVAL:g} s apart, in one go in this process: {newcomers} clients with new "
        "names in each, the metrics scraped,\nthe record in a file, a webhook; generated snapshots",
        ("cycles", "names", "terminations", "RSS"),
        rows,
    )


class _Work:
    """What the service does at one server, without the rests between."""

    def __init__(self, record: Path, *, newcomers: int) -> None:
        self.server = InventedNames(newcomers=newcomers, every=_INTERVAL)
        self.ended = 0
        self.metrics = Metrics(__version__)
        self.ledger = Ledger([FileSink(record)], clock=lambda: datetime.now(UTC), run="benchmark")
        self._settings = read(policy_file(*_policies()).encode(), file="policies.yaml")
        rules = self._settings.rules
        log = make_log(LogFormat.JSON, LogLevel.DEBUG, to=_Nowhere())
        self.notifier = Notifier(log=log, counts=self.metrics.notifications)
        url = f"http://127.0.0.1:{next(free_ports())}/"
        self.notifier.use([Hook(name="nobody", url=url, on=frozenset(Occasion), every_seconds=1.0)])
        self._reporter = Reporter("imagined", log=log, metrics=self.metrics, notifier=self.notifier)
        self._reporter.judges_by(rules)
        author = Author(
            version=__version__,
            host="here",
            by="reaper",
            server="imagined",
            rules=rules.digest,
            dry_run=False,
        )
        self._station = Station(
            observer=self.server,
            hands=Hands(enforce=self.server, rehearse=self.server),
            ledger=self.ledger,
            author=author,
            clock=ClockWatch(self.server.seconds),
        )
        self._memory = Memory()

    async def cycle(self, name: str) -> None:
        """One of them, and when the next would be due."""
        settings = self._settings
        cycle = await run_cycle(
            self._station, name, rules=settings.rules, memory=self._memory, stopping=lambda: False
        )
        self._memory = cycle.remembered
        self.ended += len(cycle.settled)
        self._reporter.cycled(cycle, took=0.0)
        rest_after(cycle.snapshot, settings.rules, interval=settings.interval, precision=settings.precision)


class _Nowhere(io.StringIO):
    """A log that takes everything and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def _policies() -> list[dict[str, object]]:
    """One that takes a session in each cycle, and others that wait for a day."""
    far = {**leaked(Role("app_?", ""), idle_for="1d")}
    soon = {
        **leaked(Role("app_?", ""), idle_for="10m"),
        "max_per_cycle": 1,
        "safety_limit": {"share": "100%"},
    }
    return [*({**far, "name": f"waits-{number}"} for number in range(_POLICIES - 1)), soon]
