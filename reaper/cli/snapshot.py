"""`reaper snapshot`, and how other commands get a snapshot: from a file or from a server."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import click

from reaper.cli.errors import Misconfigured, ServerTrouble
from reaper.cli.options import (
    SOURCE,
    USUAL_ADDRESS,
    Command,
    GroupedCommand,
    config_option,
    dsn_option,
    grouped_option,
    server_option,
)
from reaper.cli.service_client import NoService, ServiceClient
from reaper.cli.targets import pick_server, read_settings
from reaper.config import Server, Settings
from reaper.history.snapshot import MAX_BYTES, BadSnapshot, dump_snapshot, parse_snapshot
from reaper.policy.memory import Memory
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.postgres.errors import ServerError, Unreachable
from reaper.service.connection import RunOptions, open_to_observe

_OTHER_WAYS: Final = """\
hint: if all slots are in use, there are other ways:
  1. A running service is already connected: `reaper {command} --url http://HOST:9432`.
  2. A superuser has reserved slots: `reaper {command} --dsn "... user=postgres"`.
  3. From PostgreSQL 16 on, so has a role with `GRANT pg_use_reserved_connections`, if reserved_connections
     is more than 0.
  4. On the server's host, `ps -u postgres -o pid,args` shows role, database, client and state of each
     session; `kill PID` terminates one, as pg_terminate_backend does. Never use `kill -9`: it ends all."""

T = TypeVar("T")


def snapshot_option(about: str) -> Callable[[Command], Command]:
    """`--snapshot FILE`."""
    return grouped_option(
        SOURCE,
        "--snapshot",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help=f"{about} a saved snapshot, with no server; `-` is stdin.",
    )


def server_trouble(server: str, error: ServerError, *, command: str, also: str = "") -> ServerTrouble:
    """Return the error of a command that needs a slot, with other ways if the slots may be the cause."""
    hints = [_OTHER_WAYS.format(command=command)] if isinstance(error, Unreachable) else []
    return ServerTrouble("\n".join([f"{server}: {error}", *([also] if also else []), *hints]))


def read_snapshot(path: Path) -> Snapshot:
    """Return a saved snapshot; `-` is stdin."""
    try:
        return parse_snapshot(_read(path), file=str(path))
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise Misconfigured(message) from None
    except BadSnapshot as bad:
        raise Misconfigured(str(bad)) from None


def _read(path: Path) -> bytes:
    # One byte more than allowed: an endless file is refused, not read to its end.
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


class Observed(NamedTuple):
    """A snapshot, and what else decides about its sessions."""

    snapshot: Snapshot
    rules: Rules
    memory: Memory
    """Every session was seen before; with the groups that the refill guard of a service pauses."""
    note: str | None = None
    """Where the snapshot comes from, and whether that service is a dry run."""


def observe(
    config: Path,
    *,
    dsn: str | None,
    server: str | None,
    url: str | None,
    saved: Path | None,
    every_fact: bool = False,
    command: str,
) -> Observed:
    """Return a snapshot from a file, a running service or a server, with every fact or those the rules need.

    A service of this host is asked if the server refuses the connection.
    """
    settings = read_settings(config)
    if url and saved:
        message = "choose one of --url and --snapshot"
        raise Misconfigured(message)
    if saved:
        return _observed(settings, read_snapshot(saved))
    if url:
        return _through(ServiceClient(url), settings, server)
    chosen = pick_server(settings, dsn, server)
    rules = settings.rules_for(chosen)
    try:
        snapshot = asyncio.run(_take(chosen, None if every_fact else rules))
    except ServerError as error:
        served = from_local_service(
            chosen.name, error, command, lambda client: _through(client, settings, chosen.name)
        )
        return served._replace(note=f"{chosen.name}: {error}\n{served.note}")
    return Observed(snapshot, rules, Memory.of(snapshot))


def _through(client: ServiceClient, settings: Settings, server: str | None) -> Observed:
    name, overview = client.chosen(server)
    found = _observed(settings, client.snapshot(name))
    acts = "it is a dry run and terminates nothing" if overview.dry_run else "it is no dry run"
    note = f"Observed by the service at {client.base}; {acts}."
    return found._replace(memory=found.memory.with_paused(client.paused_groups(name)), note=note)


def _observed(settings: Settings, snapshot: Snapshot) -> Observed:
    known = {each.name: each for each in settings.servers}
    rules = settings.rules_for(known.get(snapshot.server, Server(name=snapshot.server, dsn="")))
    return Observed(snapshot, rules, Memory.of(snapshot))


def from_local_service(server: str, error: ServerError, command: str, ask: Callable[[ServiceClient], T]) -> T:
    """Ask the service of this host instead of a server that refuses; ServerTrouble if that fails too."""
    address = os.environ.get("REAPER_LISTEN") or USUAL_ADDRESS
    also = ""
    if address != "off":
        try:
            return ask(ServiceClient(address))
        except (NoService, Misconfigured) as trouble:
            also = trouble.format_message()
    raise server_trouble(server, error, command=command, also=also) from None


async def _take(server: Server, rules: Rules | None) -> Snapshot:
    async with open_to_observe(server, RunOptions(dry_run=True)) as at:
        return await at.observer.observe(rules)


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
def snapshot(*, config: Path, dsn: str | None, server: str | None, file: Path) -> None:
    """Save one snapshot to FILE (default: stdout), for `--snapshot` of other commands.

    It has the role, database, application, address, state and times of each session, and no query. The policy
    file is needed only if it names the servers.
    """
    settings = read_settings(config) if config.exists() else None
    chosen = pick_server(settings, dsn, server)
    try:
        data = dump_snapshot(asyncio.run(_take(chosen, None)))
    except ServerError as error:
        message = f"{chosen.name}: {error}"
        raise ServerTrouble(message) from None
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        message = f"{file}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
