"""`reaper run`: the daemon."""

import asyncio
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from reaper import __version__
from reaper.cli.audit_log import STDOUT, opened_ledger
from reaper.cli.errors import Defect, Misconfigured
from reaper.cli.options import (
    AUDIT,
    SOURCE,
    USUAL_ADDRESS,
    GroupedCommand,
    acting_options,
    env_option,
    history_options,
)
from reaper.cli.targets import pick_servers, read_settings, refuse_password
from reaper.config import Settings
from reaper.history.write import HistoryOptions
from reaper.policy.time import seconds
from reaper.postgres.audit_table import target_of
from reaper.postgres.errors import sentence
from reaper.postgres.query_text import QueryText
from reaper.service.connection import RunOptions
from reaper.service.daemon import Daemon, DaemonParts
from reaper.service.fleet import Shard, choose_servers
from reaper.service.reload import PolicyReloader
from reaper.service.reporter import RunTotals
from reaper.service.shipping import Shipment
from reaper.service.signals import SignalHandlers
from reaper.telemetry import events
from reaper.telemetry.http.server import Listener
from reaper.telemetry.http.server import listen as listen_on
from reaper.telemetry.library_warnings import library_warnings_logged
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.systemd import Systemd

_PORT: Final = "HTTP port"
_MAX_FILES: Final = 65_536


def run_options(*, dry_run: bool, with_query_text: bool, with_query_literals: bool) -> RunOptions:
    """RunOptions from the command line."""
    query_text = QueryText.SHAPE if with_query_text else QueryText.NONE
    return RunOptions(dry_run=dry_run, query_text=QueryText.FULL if with_query_literals else query_text)


def log_start(log: Log, settings: Settings, options: RunOptions, servers: Sequence[str]) -> None:
    """Log the policy file's warnings, and in numbers what this run may do."""
    for warning in settings.warnings:
        at = f"{warning.file}:{warning.line}:{warning.column}"
        log.warning(
            events.POLICY_WARNING, at=at, where=warning.where, what=warning.what, instead=warning.instead
        )
    rules = settings.rules
    log.info(
        events.STARTED,
        version=__version__,
        enforcing=0 if options.dry_run else len(rules.enforcing),
        dry_running=len(rules.enabled) if options.dry_run else len(rules.dry_running),
        servers=list(servers),
        interval_s=seconds(settings.interval),
        rules=rules.digest[:12],
    )


@click.command(cls=GroupedCommand)
@acting_options
@env_option(
    _PORT,
    "--listen",
    metavar="HOST:PORT",
    default=USUAL_ADDRESS,
    show_default=True,
    help="Where /metrics, /livez and /readyz answer; `off` for nowhere.",
)
@env_option(
    _PORT,
    "--listen-name",
    "listen_names",
    metavar="NAME",
    multiple=True,
    help="Another host name for requests to a port on loopback, such as that of a proxy that passes Host on. "
    "Addresses and localhost are always accepted. May be given several times.",
)
@env_option(
    SOURCE,
    "--shard",
    metavar="INDEX/COUNT",
    help="Watch only this share of the servers. INDEX may be a pod's name with its ordinal.",
)
@env_option(
    AUDIT,
    "--audit-table",
    metavar="DSN",
    help="A database on another server: its table reaper.record gets a copy of the audit log (of its first "
    "file) and may lag behind. Keep a password in a passfile, a service file or the environment.",
)
@history_options("history-")
@click.pass_context
def run(  # noqa: PLR0913 (click passes every option by name)
    ctx: click.Context,
    *,
    config: Path,
    dsn: str | None,
    server: str | None,
    dry_run: bool,
    audit_log: Sequence[str],
    with_query_text: bool,
    with_query_literals: bool,
    log_format: str,
    log_level: str,
    listen: str,
    listen_names: Sequence[str],
    audit_table: str | None,
    shard: str | None,
    history: HistoryOptions | None,
) -> None:
    """Watch the servers and apply the policies, until SIGTERM or Ctrl-C.

    The first cycle runs at once. A termination in progress is finished before the end. The policy file is
    read again when its content changes and on SIGHUP; a bad file never replaces a good one. SIGHUP also
    reopens the audit log.
    """
    _raise_file_limit()
    systemd = Systemd.from_environment()
    settings = read_settings(config)
    pick_servers(settings, dsn, server)
    options = run_options(
        dry_run=dry_run, with_query_text=with_query_text, with_query_literals=with_query_literals
    )
    log = make_log(LogFormat(log_format), LogLevel(log_level))
    shipment = _shipment(audit_table, audit_log)
    metrics = Metrics(__version__)
    chosen = ctx.get_parameter_source("listen") is not ParameterSource.DEFAULT
    choose = partial(choose_servers, dsn=dsn, name=server, shard=_shard(shard))
    signal_handlers = SignalHandlers()
    with (
        library_warnings_logged(log),
        _log_totals_at_end(log) as totals,
        opened_ledger(audit_log, log) as ledger,
    ):
        log_start(log, settings, options, [each.name for each in choose(settings)])
        parts = DaemonParts(
            reloader=PolicyReloader(
                config,
                settings,
                gauges=metrics.reload,
                log=log,
                objection=lambda new: _objection(new, dsn, server),
            ),
            servers=choose,
            options=options,
            ledger=ledger,
            log=log,
            metrics=metrics,
            systemd=systemd,
            listener=_listener(listen, log, required=chosen),
            names=listen_names,
            signal_handlers=signal_handlers,
            shipment=shipment,
            history=history,
        )
        daemon = Daemon(parts)
        totals.update(_run(daemon, log))
        if daemon.audit_log_failed:
            raise daemon.audit_log_failed


@contextmanager
def _log_totals_at_end(log: Log) -> Iterator[dict[str, RunTotals]]:
    """Log each server's totals as the last lines, even if the audit log cannot be closed."""
    totals = dict[str, RunTotals]()
    try:
        yield totals
    finally:
        for name, total in totals.items():
            counts = {"cycles": total.cycles, "failed": total.failures, "trips": total.trips}
            log.info(events.STOPPED, server=name, **counts, **total.by_result)


def _run(daemon: Daemon, log: Log) -> Mapping[str, RunTotals]:
    try:
        return asyncio.run(daemon.run())
    except ExceptionGroup as broken:
        for error in broken.exceptions:
            log.exception(events.BROKEN, why=f"{type(error).__name__}: {sentence(error)}", exc_info=error)
        message = "a part of the service has ended unexpectedly: this is a defect of the reaper"
        raise Defect(message) from None


def _objection(settings: Settings, dsn: str | None, server: str | None) -> str | None:
    """Return why these settings contradict the command line, or None."""
    try:
        pick_servers(settings, dsn, server)
    except Misconfigured as wrong:
        return wrong.message
    return None


def _shard(text: str | None) -> Shard | None:
    try:
        return Shard.parse(text) if text else None
    except ValueError as error:
        message = f"--shard: {error}"
        raise Misconfigured(message) from None


def _shipment(dsn: str | None, targets: Sequence[str]) -> Shipment | None:
    if not dsn:
        return None
    files = [target for target in targets if target != STDOUT]
    if not files:
        message = "--audit-table copies a file of the audit log\nhint: name one with --audit-log FILE"
        raise Misconfigured(message)
    refuse_password("audit_table", dsn)
    try:
        target_of(dsn)
    except ValueError as error:
        message = f"--audit-table: the connection string cannot be read: {error}"
        raise Misconfigured(message) from None
    return Shipment(file=Path(files[0]), dsn=dsn)


def _raise_file_limit() -> None:
    """Raise the limit of open files: each server needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = _MAX_FILES if most == resource.RLIM_INFINITY else min(most, _MAX_FILES)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, most))


def _listener(where: str, log: Log, *, required: bool) -> Listener | None:
    if where == "off":
        return None
    host, _, port = where.rpartition(":")
    try:
        listener = listen_on(host.strip("[]") or "127.0.0.1", int(port))
    except (OSError, ValueError, OverflowError) as error:
        message = f"--listen {where}: {error}\nhint: write HOST:PORT with a free port, or off"
        if required:
            raise Misconfigured(message) from None
        # A second reaper on this host, such as a dry run, must start without an option for its port.
        log.warning(events.SERVES_NOT, why=message)
        return None
    host, port = listener.getsockname()[:2]
    log.info(events.SERVES, at=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return listener
