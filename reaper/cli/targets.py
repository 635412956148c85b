"""From options to settings and servers. libpq is imported only where a server is named."""

from collections.abc import Sequence
from pathlib import Path

import click

from reaper.cli.errors import Misconfigured
from reaper.config import BadPolicyFile, Server, Settings, load


def read_settings(config: Path) -> Settings:
    """The policy file's settings; Misconfigured with every mistake if it has any."""
    try:
        return load(config)
    except BadPolicyFile as bad:
        raise Misconfigured(str(bad)) from None


def pick_servers(settings: Settings | None, dsn: str | None, name: str | None) -> Sequence[Server]:
    """The chosen servers: those of the policy file, or the one of --dsn or libpq's variables."""
    if settings is None or not settings.names_servers:
        if name:
            message = f"--server {name}: the policy file names no servers\nhint: leave --server out"
            raise Misconfigured(message)
        return (_from_dsn(dsn or ""),)
    if dsn:
        message = "the policy file names its servers\nhint: use --server NAME instead of --dsn or REAPER_DSN"
        raise Misconfigured(message)
    chosen = [server for server in settings.servers if name in {None, server.name}]
    if name and not chosen:
        message = f"--server {name}: no such server in the policy file; it names {_names(settings.servers)}"
        raise Misconfigured(message)
    return chosen


def pick_server(settings: Settings | None, dsn: str | None, name: str | None) -> Server:
    """The one chosen server; Misconfigured if there are several."""
    servers = pick_servers(settings, dsn, name)
    if len(servers) != 1:
        message = f"the policy file names {_names(servers)}\nhint: choose one with --server NAME"
        raise Misconfigured(message)
    return servers[0]


def refuse_password(parameter: str, dsn: str) -> None:
    """Raise Misconfigured if a connection string from the command line carries a secret."""
    from reaper.postgres.connection import has_password  # noqa: PLC0415

    option = f"--{parameter.replace('_', '-')}"
    source = click.get_current_context().get_parameter_source(parameter)
    if source is click.core.ParameterSource.COMMANDLINE and has_password(dsn):
        message = (
            f"{option} carries a password, and every user of this host can read command lines\n"
            f"hint: put it into a passfile, a service file, PGPASSWORD or REAPER_{parameter.upper()}"
        )
        raise Misconfigured(message)


def _names(servers: Sequence[Server]) -> str:
    return ", ".join(server.name for server in servers) or "no server that can be found now"


def _from_dsn(dsn: str) -> Server:
    from reaper.service.fleet import from_dsn  # noqa: PLC0415

    refuse_password("dsn", dsn)
    try:
        return from_dsn(dsn)
    except ValueError as error:
        message = f"the connection string cannot be read: {error}"
        raise Misconfigured(message) from None
