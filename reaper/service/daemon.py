"""The daemon: every part a named task, and the end of any one ends the process with a reason."""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import Any, Final

from starlette.applications import Starlette

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import RecordFailed
from reaper.config import Occasion, Server, Settings, Webhook
from reaper.policy.time import seconds
from reaper.service.connection import RunOptions
from reaper.service.fleet import Fleet
from reaper.service.history import Keeping
from reaper.service.page_data import Lessons, PageData
from reaper.service.pause import pause
from reaper.service.reload import PolicyReloader
from reaper.service.reporter import RecentEvents, RunTotals
from reaper.service.server_loop import LoopContext, ServerLoop
from reaper.service.shipping import Shipment, Shipper
from reaper.service.signals import Flags, SignalHandlers, handle_signals
from reaper.service.status import HealthCheck
from reaper.telemetry import events
from reaper.telemetry.http.server import application, serve
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.exposition import CopyGauges
from reaper.telemetry.notify import Hook, Notifier
from reaper.telemetry.systemd import Systemd


class ChainHeadLog:
    """Tells where the chain of each sink stands, each head once."""

    def __init__(self, ledger: Ledger, log: Log) -> None:
        self._ledger = ledger
        self._log = log
        self._told = dict[str, str]()

    def tell(self) -> None:
        """Tell those that have moved since."""
        for file, digest in self._ledger.heads():
            if self._told.get(file) != digest:
                self._told[file] = digest
                self._log.info(events.RECORD_HEAD, file=file, digest=digest)


_BEAT_SECONDS: Final = 1.0
_BEATS_A_LOOK: Final = 5
"""How often the content of the policy file is looked at."""

_BEATS_A_HEAD: Final = 3_600
"""How often the head of the record is told: what was written since then could be taken away unseen."""

_MOST_NAMES: Final = 256
"""So many names may hang in the resolver before other servers, and the pages, wait for a thread."""


class Broken(Exception):
    """A part that should never end has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a daemon is made of."""

    reloader: PolicyReloader
    servers: Callable[[Settings], Sequence[Server]]
    """Which servers of these settings are ours."""
    options: RunOptions
    ledger: Ledger
    log: Log
    metrics: Metrics
    systemd: Systemd
    listening: socket | None
    names: Collection[str] = ()
    """By which the port on loopback may be asked for, beside addresses and `localhost`."""
    signal_handlers: SignalHandlers | None = None
    shipment: Shipment | None = None
    """The record on its way into a table."""
    keeping: Keeping | None = None
    """The history of every server."""


class Daemon:
    """Runs until SIGTERM or Ctrl-C."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.record_failed: RecordFailed | None = None
        """What kept the end of the record from being written."""
        settings = self._settings
        common = LoopContext(
            settings=settings, options=parts.options, ledger=parts.ledger, keeping=parts.keeping
        )
        self._notifier = Notifier(log=parts.log, counts=parts.metrics.notifications)
        self._recent_events = RecentEvents()
        self._fleet = Fleet(
            common,
            log=parts.log,
            metrics=parts.metrics,
            notifier=self._notifier,
            recent_events=self._recent_events,
        )
        self._shipper = self._shipper_of(parts)
        self._health = HealthCheck(
            statuses=lambda: self._fleet.statuses,
            settings=settings,
            reload=parts.metrics.reload,
            dry_run=parts.options.dry_run,
            notices=lambda: self._shipper.reasons() if self._shipper else {},
        )

    async def run(self) -> Mapping[str, RunTotals]:
        """Begin everywhere, keep watch, end everywhere; returns what was done at each server."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_MOST_NAMES, "names"))
        flags = handle_signals(self._parts.log, self._parts.signal_handlers)
        last = asyncio.Event()
        async with asyncio.TaskGroup() as group:

            def start(name: str, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
                group.create_task(_eternal(name, work, stop), name=name)

            parts = self._parts
            if parts.listening:
                pages = serve(self._pages(), parts.listening, last, log=parts.log, names=parts.names)
                start("http", pages, last)
            start("notify", self._notifier.run(last), last)
            if self._shipper:
                start("record table", self._shipper.run(last), last)
            await self._watch(flags, lambda loop: start(f"server {loop.server.name}", loop.run(), loop.stop))
            self._parts.systemd.stopping()
            self._fleet.stop()
            await self._fleet.ended()
            # Now, so that its last line is carried into the table as well.
            self._close_record()
            last.set()
        return self._fleet.totals

    async def _watch(self, flags: Flags, start: Callable[[ServerLoop], None]) -> None:
        """Once a second, and at once on a signal: reload, muster, feed the watchdog, say how it stands."""
        parts = self._parts
        self._update_servers(start)
        # A manager that waits for less than two beats is fed in time all the same.
        beat = min(_BEAT_SECONDS, (parts.systemd.watchdog_seconds or math.inf) / 2)
        announced, beats, heads = False, 0, ChainHeadLog(parts.ledger, parts.log)
        while not flags.stop.is_set():
            if not announced and self._health.started():
                parts.systemd.ready()
                announced = True
            self._beat()
            await pause(beat, flags.stop, flags.reload)
            if flags.reload.is_set():
                flags.reload.clear()
                await self._reload_as_asked(start)
            elif (beats := beats + 1) % _BEATS_A_LOOK == 0 and await parts.reloader.look():
                self._update_servers(start)
            if beats % _BEATS_A_HEAD == 0:
                heads.tell()

    async def _reload_as_asked(self, start: Callable[[ServerLoop], None]) -> None:
        self._parts.systemd.reloading()
        self._reopen_record()
        await self._parts.reloader.reload()
        self._update_servers(start)
        self._parts.systemd.ready()

    def _update_servers(self, start: Callable[[ServerLoop], None]) -> None:
        settings = self._settings()
        self._parts.metrics.put_in_force(
            digest=settings.rules.digest, interval_seconds=seconds(settings.interval)
        )
        self._notifier.use(map(_hook, settings.notify))
        self._fleet.update_servers(self._parts.servers(settings), start)

    def _beat(self) -> None:
        manager = self._parts.systemd
        if not manager.listens:
            return  # a look at every server for nobody
        manager.status(self._health.status())
        if self._health.live().good:
            manager.alive()

    def _reopen_record(self) -> None:
        try:
            self._parts.ledger.reopen()
        except RecordFailed as failed:
            self._parts.log.error(events.RECORD_FAILED, why=str(failed))  # noqa: TRY400 (a sentence)
        else:
            self._parts.log.info(events.RECORD_REOPENED)

    def _close_record(self) -> None:
        try:
            self._parts.ledger.close()
        except RecordFailed as failed:
            self.record_failed = failed

    def _shipper_of(self, parts: Parts) -> Shipper | None:
        if parts.shipment is None:
            return None
        parts.metrics.copy = gauges = CopyGauges()
        alarm = partial(self._notifier.tell, Occasion.FAILURES.value)
        return Shipper(parts.shipment, log=parts.log, gauges=gauges, alarm=alarm)

    def _settings(self) -> Settings:
        return self._parts.reloader.settings

    def _pages(self) -> Starlette:
        learnt = Lessons(fleet=self._fleet).verdicts
        page_data = PageData(
            fleet=self._fleet,
            settings=self._settings,
            metrics=self._parts.metrics,
            recent_events=self._recent_events,
            learnt=learnt,
            dry_run=self._parts.options.dry_run,
        )
        return application(
            metrics=self._parts.metrics,
            livez=self._health.live,
            readyz=self._health.ready,
            overview=page_data.overview,
            learnt=learnt,
            rows=page_data.rows,
        )


def _hook(webhook: Webhook) -> Hook:
    on = frozenset(occasion.value for occasion in webhook.on)
    return Hook(name=webhook.name, url=webhook.url, on=on, every_seconds=seconds(webhook.every))


async def _eternal(name: str, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Do it until the stop; whatever ends sooner is broken."""
    await work
    if not stop.is_set():
        message = f"{name} has ended by itself"
        raise Broken(message)
