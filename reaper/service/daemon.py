"""The daemon: every part is a named task; if a part ends too early, the process ends with the reason."""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.config import Occasion, Server, Settings, Webhook
from reaper.history.write import HistoryOptions
from reaper.policy.time import seconds
from reaper.service.connection import RunOptions
from reaper.service.fleet import Fleet
from reaper.service.page_data import LiveAssessment, PageData
from reaper.service.pause import pause
from reaper.service.reload import PolicyReloader
from reaper.service.reporter import ChainHeadLog, RecentEvents, RunTotals
from reaper.service.server_loop import LoopContext, ServerLoop
from reaper.service.shipping import Shipment, Shipper
from reaper.service.signals import Flags, SignalHandlers, handle_signals
from reaper.service.status import HealthCheck
from reaper.telemetry import events
from reaper.telemetry.http.routes import application
from reaper.telemetry.http.server import Listener, serve
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import AuditTableGauges, Metrics
from reaper.telemetry.notify import Hook, Notifier
from reaper.telemetry.systemd import Systemd

_TICK_SECONDS: Final = 1.0
_RELOAD_CHECK_SECONDS: Final = 5.0
_CHAIN_HEAD_SECONDS: Final = 3_600.0
"""The head of the audit log's chain is logged each hour: later entries could be removed unnoticed."""
_RESOLVER_THREADS: Final = 256
"""A host name that does not resolve holds a thread; with fewer, other servers and the pages would wait."""


class PartEnded(Exception):
    """A part that should never end has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonParts:
    """What a daemon is made of."""

    reloader: PolicyReloader
    servers: Callable[[Settings], Sequence[Server]]
    """Chooses the servers of this daemon from the settings."""
    options: RunOptions
    ledger: Ledger
    log: Log
    metrics: Metrics
    systemd: Systemd
    listener: Listener | None
    names: Collection[str] = ()
    """Host names that requests to a loopback port may use, beside addresses and `localhost`."""
    signal_handlers: SignalHandlers | None = None
    shipment: Shipment | None = None
    """The audit table to which entries are copied."""
    history: HistoryOptions | None = None
    """Where the history of every server is kept."""


class Daemon:
    """Runs until SIGTERM or Ctrl-C."""

    def __init__(self, parts: DaemonParts) -> None:
        self._parts = parts
        self.audit_log_failed: AuditLogFailed | None = None
        """Why the end of the audit log could not be written."""
        context = LoopContext(
            settings=self._settings, options=parts.options, ledger=parts.ledger, history=parts.history
        )
        self._notifier = Notifier(log=parts.log, counts=parts.metrics.notifications)
        self._recent_events = RecentEvents()
        self._fleet = Fleet(
            context,
            log=parts.log,
            metrics=parts.metrics,
            notifier=self._notifier,
            recent_events=self._recent_events,
        )
        self._shipper = self._new_shipper()
        self._health = HealthCheck(
            statuses=lambda: self._fleet.statuses,
            settings=self._settings,
            reload=parts.metrics.reload,
            dry_run=parts.options.dry_run,
            notices=lambda: self._shipper.reasons() if self._shipper else {},
        )

    async def run(self) -> Mapping[str, RunTotals]:
        """Start every part, supervise them, end them in order; return the totals of each server."""
        parts, last = self._parts, asyncio.Event()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_RESOLVER_THREADS, "names"))
        flags = handle_signals(parts.log, parts.signal_handlers)
        async with asyncio.TaskGroup() as group:

            def start(name: str, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
                group.create_task(_run_forever(name, work, stop), name=name)

            if parts.listener:
                pages = serve(self._pages(), parts.listener, last, log=parts.log, names=parts.names)
                start("http", pages, last)
            start("notify", self._notifier.run(last), last)
            if self._shipper:
                start("audit table", self._shipper.run(last), last)
            await self._supervise(
                flags, lambda loop: start(f"server {loop.server.name}", loop.run(), loop.stop)
            )
            # Loops first: each finishes its termination and logs its outcome.
            parts.systemd.stopping()
            self._fleet.stop()
            await self._fleet.ended()
            # Close the audit log before the shipper stops, so that its last entry reaches the table too.
            self._close_audit_log()
            last.set()
        return self._fleet.totals

    async def _supervise(self, flags: Flags, start: Callable[[ServerLoop], None]) -> None:
        """Until the stop: reload, update the servers, and feed the watchdog, once a second and on signals."""
        parts = self._parts
        self._apply_settings(start)
        # Two ticks fit into the shortest watchdog interval.
        tick = min(_TICK_SECONDS, (parts.systemd.watchdog_seconds or math.inf) / 2)
        now = asyncio.get_running_loop().time
        next_check, next_head = now() + _RELOAD_CHECK_SECONDS, now() + _CHAIN_HEAD_SECONDS
        announced, heads = False, ChainHeadLog(parts.ledger, parts.log)
        while not flags.stop.is_set():
            # Ready means that every server was tried, not that it was reached: one may be down for hours.
            if not announced and self._health.started():
                parts.systemd.ready()
                announced = True
            self._notify_systemd()
            await pause(tick, flags.stop, flags.reload)
            if flags.reload.is_set():
                flags.reload.clear()
                await self._reload(start)
            elif now() >= next_check:
                next_check = now() + _RELOAD_CHECK_SECONDS
                if await parts.reloader.reload_if_changed():
                    self._apply_settings(start)
            if now() >= next_head:
                next_head = now() + _CHAIN_HEAD_SECONDS
                heads.log_new()

    async def _reload(self, start: Callable[[ServerLoop], None]) -> None:
        self._parts.systemd.reloading()
        # First: logrotate sends this signal too, and entries until then go to the renamed file.
        self._reopen_audit_log()
        await self._parts.reloader.reload()
        self._apply_settings(start)
        self._parts.systemd.ready()

    def _apply_settings(self, start: Callable[[ServerLoop], None]) -> None:
        settings = self._settings()
        self._parts.metrics.put_in_force(
            digest=settings.rules.digest, interval_seconds=seconds(settings.interval)
        )
        self._notifier.use(map(_hook, settings.notify))
        self._fleet.update_servers(self._parts.servers(settings), start)

    def _notify_systemd(self) -> None:
        self._parts.systemd.status(self._health.status())
        # Without this message systemd restarts the service, which a loop without progress needs.
        if self._health.live().good:
            self._parts.systemd.alive()

    def _reopen_audit_log(self) -> None:
        try:
            self._parts.ledger.reopen()
        except AuditLogFailed as failed:
            self._parts.log.error(events.AUDIT_FAILED, why=str(failed))  # noqa: TRY400 (a sentence)
        else:
            self._parts.log.info(events.AUDIT_REOPENED)

    def _close_audit_log(self) -> None:
        try:
            self._parts.ledger.close()
        except AuditLogFailed as failed:
            self.audit_log_failed = failed

    def _new_shipper(self) -> Shipper | None:
        parts = self._parts
        if parts.shipment is None:
            return None
        parts.metrics.audit_table = gauges = AuditTableGauges()
        alarm = partial(self._notifier.notify, Occasion.FAILURES.value)
        return Shipper(parts.shipment, log=parts.log, gauges=gauges, alarm=alarm)

    def _settings(self) -> Settings:
        return self._parts.reloader.settings

    def _pages(self) -> Starlette:
        assessment = LiveAssessment(fleet=self._fleet).read
        page_data = PageData(
            fleet=self._fleet,
            settings=self._settings,
            metrics=self._parts.metrics,
            recent_events=self._recent_events,
            assessment=assessment,
            dry_run=self._parts.options.dry_run,
        )
        return application(
            metrics=self._parts.metrics,
            livez=self._health.live,
            readyz=self._health.ready,
            overview=page_data.overview,
            assessment=assessment,
            snapshot=page_data.snapshot,
        )


def _hook(webhook: Webhook) -> Hook:
    on = frozenset(occasion.value for occasion in webhook.on)
    return Hook(name=webhook.name, url=webhook.url, on=on, every_seconds=seconds(webhook.every))


async def _run_forever(name: str, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Run `work` until the stop; raise PartEnded if it ends sooner."""
    await work
    if not stop.is_set():
        message = f"{name} has ended by itself"
        raise PartEnded(message)
