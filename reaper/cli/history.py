"""`reaper history`: record the sessions of servers, to try policies on them later."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from reaper.cli.options import (
    GroupedCommand,
    config_option,
    dsn_option,
    history_options,
    log_options,
    server_option,
)
from reaper.cli.targets import pick_servers, read_settings
from reaper.config import Server
from reaper.history.write import HistoryOptions
from reaper.service.history import HistoryLoop
from reaper.service.signals import handle_signals
from reaper.telemetry import events
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@history_options()
@log_options
def history(
    *,
    config: Path,
    dsn: str | None,
    server: str | None,
    history: HistoryOptions,
    log_format: str,
    log_level: str,
) -> None:
    """Record the sessions of a server, or of all servers of the policy file, every few seconds.

    The files hold for each session its identity, its address, its state and since when; never a query. No
    policy is applied: the policy file is needed only if it names the servers. `reaper run --history DIR`
    records the same beside its cycles.
    """
    settings = read_settings(config) if config.exists() else None
    servers = pick_servers(settings, dsn, server)
    log = make_log(LogFormat(log_format), LogLevel(log_level))
    log.info(
        events.HISTORY_STARTED, servers=" ".join(each.name for each in servers), to=str(history.folder.path)
    )
    asyncio.run(_record(servers, history, log))


async def _record(servers: Sequence[Server], options: HistoryOptions, log: Log) -> None:
    stop = handle_signals(log).stop
    async with asyncio.TaskGroup() as group:
        for each in servers:
            group.create_task(HistoryLoop(each, options, log=log, stop=stop).run(), name=each.name)
