"""`reaper snapshot`: save one look at a server, to judge it later or elsewhere."""

import asyncio
import sys
from pathlib import Path

import click

from reaper.cli.errors import Misconfigured, ServerTrouble
from reaper.cli.options import dsn_option, policies_option, server_option
from reaper.cli.targets import pick_server, read_settings
from reaper.config import Server, Settings
from reaper.history.snapshot import MAX_BYTES, BadSnapshot, dump_snapshot, parse_snapshot
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.postgres.errors import ServerError
from reaper.postgres.query_text import QueryText
from reaper.service.connection import RunOptions
from reaper.service.observe import open_to_observe


def read_snapshot(path: Path) -> Snapshot:
    """A saved snapshot; `-` is stdin."""
    try:
        return parse_snapshot(_read(path), file=str(path))
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise Misconfigured(message) from None
    except BadSnapshot as bad:
        raise Misconfigured(str(bad)) from None


def _read(path: Path) -> bytes:
    # One byte more than is taken: a file without end is refused, and not read to its end.
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def look(
    settings: Settings, *, dsn: str | None, server: str | None, saved: Path | None, every_fact: bool = False
) -> tuple[Snapshot, Rules]:
    """A snapshot, live or saved, and the rules of its server; with every fact, or with those in need."""
    if saved is None:
        chosen = pick_server(settings, dsn, server)
        rules = settings.rules_for(chosen)
        return look_at(chosen, None if every_fact else rules), rules
    snapshot = read_snapshot(saved)
    known = {each.name: each for each in settings.servers}
    return snapshot, settings.rules_for(known.get(snapshot.server, Server(name=snapshot.server, dsn="")))


def look_at(server: Server, rules: Rules | None, *, query_text: QueryText = QueryText.NONE) -> Snapshot:
    """Take one snapshot, or say why that is not possible."""
    try:
        return asyncio.run(_look_at(server, rules, query_text))
    except ServerError as error:
        message = f"{server.name}: {error}"
        raise ServerTrouble(message) from None


async def _look_at(server: Server, rules: Rules | None, query_text: QueryText) -> Snapshot:
    options = RunOptions(dry_run=True, query_text=query_text)
    async with open_to_observe(server, options) as at:
        return await at.observer.observe(rules)


@click.command
@policies_option
@dsn_option
@server_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
def snapshot(*, policies: Path, dsn: str | None, server: str | None, file: Path) -> None:
    """Save one snapshot to FILE (default: stdout), for `reaper plan --snapshot`.

    Holds who is connected, from where, in which state and since when; never a query. The policy file is
    needed only when it names the servers.
    """
    settings = read_settings(policies) if policies.exists() else None
    data = dump_snapshot(look_at(pick_server(settings, dsn, server), None))
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        message = f"{file}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
