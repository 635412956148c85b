"""`reaper once`: one cycle, for cron and CI."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from reaper.audit.ledger import Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.cli.audit_log import opened_ledger
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import GroupedCommand, acting_options
from reaper.cli.run import log_start, run_options
from reaper.cli.targets import pick_servers, read_settings
from reaper.config import Server, Settings
from reaper.postgres.errors import ServerError
from reaper.postgres.leadership import Holder
from reaper.service.connection import RunOptions
from reaper.service.cycle import Cycle
from reaper.service.once import run_once
from reaper.service.signals import handle_signals
from reaper.telemetry.library_warnings import library_warnings_logged
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log


@click.command(cls=GroupedCommand)
@acting_options
def once(  # noqa: PLR0913 (click passes every option by name)
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
) -> None:
    """Run one cycle and end.

    The cycle takes two snapshots, `min_interval` apart, because no session is terminated on first sight. Exit
    code 1: something that was due was not done (the safety limit, a refusal of the server, an unknown
    outcome), or another reaper leads.
    """
    settings = read_settings(config)
    servers = pick_servers(settings, dsn, server)
    options = run_options(
        dry_run=dry_run, with_query_text=with_query_text, with_query_literals=with_query_literals
    )
    log = make_log(LogFormat(log_format), LogLevel(log_level))
    with library_warnings_logged(log), opened_ledger(audit_log, log) as ledger:
        log_start(log, settings, options, [each.name for each in servers])
        results = asyncio.run(_run_everywhere(servers, settings, options, ledger, log))
    for result in results:
        if isinstance(result, AuditLogFailed):
            raise Misconfigured(str(result))
    lost = [result for result in results if isinstance(result, ServerError)]
    if lost:
        raise ServerTrouble("; ".join(map(str, lost)))
    if any(not isinstance(result, Cycle) or result.left_undone for result in results):
        raise click.exceptions.Exit(Exit.PROBLEM)


async def _run_everywhere(
    servers: Sequence[Server], settings: Settings, options: RunOptions, ledger: Ledger, log: Log
) -> Sequence[Cycle | Holder | ServerError | AuditLogFailed | None]:
    """Run the cycle at all servers at once; an error of one server does not affect the others."""
    stop = handle_signals(log).stop

    async def at(server: Server) -> Cycle | Holder | ServerError | AuditLogFailed | None:
        try:
            return await run_once(server, settings, options, ledger=ledger, log=log, stop=stop)
        except ServerError as error:
            return ServerError(f"{server.name}: {error}")
        except AuditLogFailed as failed:
            return failed  # raised once the other servers have finished their cycles

    return await asyncio.gather(*map(at, servers))
