"""What a policy file settles, once it is found to be in order."""

from dataclasses import dataclass, field, replace
from typing import Final

from reaper.config.labels import EVERY_SERVER, Labels, Only
from reaper.config.mistakes import Mistake
from reaper.config.webhooks import Webhook
from reaper.policy.rules import Rules
from reaper.policy.time import SECOND, Span

DEFAULT_INTERVAL: Final = Span(10 * SECOND)
DEFAULT_PRECISION: Final = Span(SECOND // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to watch."""

    name: str
    dsn: str = field(repr=False)
    """Without a password; empty for libpq's own PG* variables."""
    labels: Labels = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole of a policy file, and of the files that it names."""

    rules: Rules
    """Of all policies, whichever servers they concern."""
    interval: Span
    precision: Span
    servers: tuple[Server, ...]
    """None, when the environment names the server, or when no file of `servers_from` names one now."""
    warnings: tuple[Mistake, ...]
    only: tuple[tuple[str, Only], ...] = ()
    """The policies that concern some servers only, by name."""
    notify: tuple[Webhook, ...] = ()
    servers_from: tuple[str, ...] = ()
    """Patterns of files that list servers, from the working directory on; none without the key."""
    secrets: tuple[str, ...] = ()
    """Files that hold the URLs of webhooks, from the working directory on."""

    @property
    def names_servers(self) -> bool:
        """Whether the file says which servers to watch, even if none is found right now."""
        return bool(self.servers or self.servers_from)

    def rules_for(self, server: Server) -> Rules:
        """The rules without the policies that do not concern this server."""
        if not self.only:
            return self.rules
        only = dict(self.only)
        concerned = (p for p in self.rules.policies if only.get(p.name, EVERY_SERVER).fits(server.labels))
        return replace(self.rules, policies=tuple(concerned))
