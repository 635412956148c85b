"""Which servers a reaper looks after."""

from collections.abc import Sequence

from reaper.config import Server, Settings
from reaper.postgres.link import name_of
from reaper.service.sharding import Shard


def choose_servers(
    settings: Settings, *, dsn: str | None, name: str | None, shard: Shard | None = None
) -> Sequence[Server]:
    """Those of the policy file that are meant, or the one of the connection string or libpq's variables."""
    servers = settings.servers if settings.names_servers else (from_dsn(dsn),)
    return [
        server
        for server in servers
        if name in {None, server.name} and (shard is None or shard.owns(server.name))
    ]


def from_dsn(dsn: str | None) -> Server:
    """A server that the policy file does not name; ValueError when the connection string is unreadable."""
    return Server(name=name_of(dsn or ""), dsn=dsn or "")
