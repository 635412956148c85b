"""`reaper once`: one cycle, for cron and CI."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.cli.audit_log import opened_ledger
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import acting_options
from reaper.cli.run import manner_of, say_what_will_be_done
from reaper.cli.targets import pick_servers, read_settings
from reaper.config import Server, Settings
from reaper.postgres.errors import ServerError
from reaper.postgres.leadership import Holder
from reaper.service.connection import RunOptions
from reaper.service.cycle import Cycle
from reaper.service.once import run_once
from reaper.service.signals import handle_signals
from reaper.telemetry.library_warnings import strays_told
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log


@click.command
@acting_options
def once(  # noqa: PLR0913 (click hands every option over by name)
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
    """Run one cycle and end.

    It looks twice, `precision` apart, for nobody is terminated on first sight. Exit code 1: something
    that was due was not done: a brake, a refusal of the server, an uncertain end, or another reaper leads.
    """
    settings = read_settings(policies)
    servers = pick_servers(settings, dsn, server)
    options = manner_of(
        dry_run=dry_run, with_query_text=with_query_text, with_query_literals=with_query_literals
    )
    log = make_log(LogFormat(log_format), LogLevel(log_level))
    with strays_told(log), opened_ledger(audit_log, log) as ledger:
        say_what_will_be_done(log, settings, options, [each.name for each in servers])
        cycles = asyncio.run(_everywhere(servers, settings, options, ledger, log))
    unrecorded = [result for result in cycles if isinstance(result, AuditLogFailed)]
    if unrecorded:
        raise Misconfigured(str(unrecorded[0]))
    lost = [result for result in cycles if isinstance(result, ServerError)]
    if lost:
        raise ServerTrouble("; ".join(map(str, lost)))
    if any(not isinstance(result, Cycle) or result.left_undone for result in cycles):
        raise click.exceptions.Exit(Exit.NO)


async def _everywhere(
    servers: Sequence[Server], settings: Settings, options: RunOptions, ledger: Ledger, log: Log
) -> Sequence[Cycle | Holder | ServerError | AuditLogFailed | None]:
    """One server's trouble is no other's."""
    stop = handle_signals(log).stop

    async def at(server: Server) -> Cycle | Holder | ServerError | AuditLogFailed | None:
        try:
            return await run_once(server, settings, options, ledger=ledger, log=log, stop=stop)
        except ServerError as error:
            return ServerError(f"{server.name}: {error}")
        except AuditLogFailed as failed:
            return failed  # the others are in the middle of theirs

    return await asyncio.gather(*map(at, servers))
