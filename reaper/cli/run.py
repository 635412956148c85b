"""`reaper run`: the daemon."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from reaper import __version__
from reaper.cli.options import acting_options
from reaper.cli.record import opened_ledger
from reaper.cli.targets import pick_servers, read_settings
from reaper.config import Settings
from reaper.policy.spans import exact_words
from reaper.postgres.query_text import QueryText
from reaper.service.fleet import run_fleet
from reaper.service.station import Manner
from reaper.telemetry import events
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log


def manner_of(*, dry_run: bool, with_query_text: bool, with_query_literals: bool) -> Manner:
    """How to go about it, from the options."""
    shown = QueryText.SHAPE if with_query_text else QueryText.NONE
    return Manner(dry_run=dry_run, query_text=QueryText.FULL if with_query_literals else shown)


def say_what_will_be_done(log: Log, settings: Settings, manner: Manner, servers: Sequence[str]) -> None:
    """At the start, in numbers, what may happen from now on."""
    for warning in settings.warnings:
        at = f"{warning.file}:{warning.line}:{warning.column}"
        log.warning(
            events.POLICY_WARNING, at=at, where=warning.where, what=warning.what, instead=warning.instead
        )
    rules = settings.rules
    log.info(
        events.STARTED,
        version=__version__,
        enforcing=0 if manner.dry_run else len(rules.enforcing),
        rehearsing=len(rules.awake) if manner.dry_run else len(rules.rehearsing),
        servers=" ".join(servers),
        interval=exact_words(settings.interval),
        rules=rules.digest[:12],
    )


@click.command(short_help="Watch the servers and carry the policies out.")
@acting_options
def run(  # noqa: PLR0913 (click hands every option over by name)
    *,
    policies: Path,
    dsn: str | None,
    server: str | None,
    dry_run: bool,
    audit_log: Sequence[str],
    with_query_text: bool,
    with_query_literals: bool,
    log_format: str,
    log_level: str,
) -> None:
    """Watch the servers and carry the policies out, until SIGTERM or Ctrl-C.

    The first cycle runs at once. A termination at hand is finished before the end. SIGHUP reopens the record.
    """
    settings = read_settings(policies)
    servers = pick_servers(settings, dsn, server)
    manner = manner_of(
        dry_run=dry_run, with_query_text=with_query_text, with_query_literals=with_query_literals
    )
    log = make_log(LogFormat(log_format), LogLevel(log_level))
    with opened_ledger(audit_log, log) as ledger:
        say_what_will_be_done(log, settings, manner, [each.name for each in servers])
        tallies = asyncio.run(run_fleet(servers, settings, manner, ledger=ledger, log=log))
        for each, tally in tallies:
            counts = {"cycles": tally.cycles, "failed": tally.failures, "brakes": tally.brakes}
            log.info(events.STOPPED, server=each.name, **counts, **tally.by_result)
