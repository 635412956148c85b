"""A single look at one server, for the commands that only show."""

import asyncio
from pathlib import Path

from reaper.cli.exits import ServerTrouble
from reaper.cli.saved import read_snapshot
from reaper.cli.targets import pick_server
from reaper.config import Server, Settings
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.postgres.errors import ServerError
from reaper.postgres.preflight import refuse
from reaper.postgres.query_text import QueryText
from reaper.service.looking import MISLEADING
from reaper.service.station import Manner, opened


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
    manner = Manner(dry_run=True, query_text=query_text)
    async with opened(server, rules, manner) as at:
        refuse(tuple(found for found in at.findings if found.check in MISLEADING))
        return await at.observer.observe(rules)
