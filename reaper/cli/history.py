"""`reaper record-history`: keep who holds the slots, to try policies on it later."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from reaper.cli.options import dsn_option, history_options, log_options, policies_option, server_option
from reaper.cli.targets import pick_servers, read_settings
from reaper.config import Server
from reaper.service.history import Keeping, Recorder
from reaper.service.signals import handle_signals
from reaper.telemetry import events
from reaper.telemetry.log import Log, LogFormat, LogLevel, make_log


@click.command("record-history")
@policies_option
@dsn_option
@server_option
@history_options()
@log_options
def record_history(
    *,
    policies: Path,
    dsn: str | None,
    server: str | None,
    keeping: Keeping,
    log_format: str,
    log_level: str,
) -> None:
    """Look at a server, or at all of the policy file, every few seconds, and keep what was seen.

    Holds who is connected, from where, in which state and since when; never a query. Judges nobody. The
    policy file is needed only when it names the servers. `reaper run --history DIR` does the same beside its
    cycles.
    """
    settings = read_settings(policies) if policies.exists() else None
    servers = pick_servers(settings, dsn, server)
    log = make_log(LogFormat(log_format), LogLevel(log_level))
    log.info(
        events.HISTORY_STARTED, servers=" ".join(each.name for each in servers), to=str(keeping.folder.path)
    )
    asyncio.run(_record(servers, keeping, log))


async def _record(servers: Sequence[Server], keeping: Keeping, log: Log) -> None:
    stop = handle_signals(log).stop
    async with asyncio.TaskGroup() as group:
        for each in servers:
            group.create_task(Recorder(each, keeping, log=log, stop=stop).run(), name=each.name)
