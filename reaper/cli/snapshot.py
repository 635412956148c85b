"""`reaper snapshot`, and how other commands get a snapshot: from a file or from a server."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from reaper.cli.errors import Misconfigured, ServerTrouble
from reaper.cli.options import Command, dsn_option, env_option, policies_option, server_option
from reaper.cli.service_client import USUAL_ADDRESS, ServiceClient
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


def url_option(about: str, envvar: str = "REAPER_URL") -> Callable[[Command], Command]:
    """`--url URL`."""
    address = f"The address of a running service, such as http://{USUAL_ADDRESS}"
    return click.option("--url", metavar="URL", envvar=envvar, show_envvar=True, help=f"{address}: {about}.")


def snapshot_option(about: str) -> Callable[[Command], Command]:
    """`--snapshot FILE`."""
    return env_option(
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


def snapshot_and_rules(
    settings: Settings, *, dsn: str | None, server: str | None, saved: Path | None, every_fact: bool = False
) -> tuple[Snapshot, Rules]:
    """Return a snapshot, taken or saved, and its server's rules; with every fact, or those the rules need."""
    if saved is None:
        chosen = pick_server(settings, dsn, server)
        rules = settings.rules_for(chosen)
        return take_snapshot(chosen, None if every_fact else rules), rules
    snapshot = read_snapshot(saved)
    known = {each.name: each for each in settings.servers}
    return snapshot, settings.rules_for(known.get(snapshot.server, Server(name=snapshot.server, dsn="")))


def take_snapshot(server: Server, rules: Rules | None) -> Snapshot:
    """Return a snapshot of the server, or raise ServerTrouble."""

    async def observe() -> Snapshot:
        async with open_to_observe(server, RunOptions(dry_run=True)) as at:
            return await at.observer.observe(rules)

    try:
        return asyncio.run(observe())
    except ServerError as error:
        message = f"{server.name}: {error}"
        raise ServerTrouble(message) from None


def memory_of(snapshot: Snapshot, url: str | None) -> Memory:
    """Return a memory in which every session was seen before, with the groups paused by the refill guard."""
    memory = Memory.of(snapshot)
    if not url:
        return memory
    try:
        return memory.with_paused(ServiceClient(url).paused_groups(snapshot.server))
    except ServerTrouble as trouble:
        # From the environment, the address may be set for other commands: this one works without it.
        if click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE:
            raise
        trouble.show()
        return memory


@click.command
@policies_option
@dsn_option
@server_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
def snapshot(*, policies: Path, dsn: str | None, server: str | None, file: Path) -> None:
    """Save one snapshot to FILE (default: stdout), for `--snapshot` of other commands.

    It has the role, database, application, address, state and times of each session, and no query. The policy
    file is needed only if it names the servers.
    """
    settings = read_settings(policies) if policies.exists() else None
    data = dump_snapshot(take_snapshot(pick_server(settings, dsn, server), None))
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        message = f"{file}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
