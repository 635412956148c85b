"""The contents of a valid policy file."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from reaper.config.errors import Mistake
from reaper.policy.rules import Rules
from reaper.policy.time import Duration

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """The servers that a policy applies to: those that have all of these labels."""

    labels: tuple[tuple[str, frozenset[str]], ...] = ()
    """Names, each with its values, of which any is enough."""

    def selects(self, labels: Labels) -> bool:
        """Return True if the policy applies to a server with these labels."""
        present = dict(labels)
        return all(present.get(name) in values for name, values in self.labels)

    def includes(self, other: "LabelSelector") -> bool:
        """Return True if this one selects every server, known or not, that the other one selects."""
        wanted = dict(other.labels)
        return all(name in wanted and wanted[name] <= values for name, values in self.labels)


EVERY_SERVER: Final = LabelSelector()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to watch."""

    name: str
    dsn: str = field(repr=False)
    """Without a password; empty for libpq's own PG* variables."""
    labels: Labels = ()


class Occasion(StrEnum):
    """A kind of event that webhooks report."""

    SAFETY_LIMIT = "safety_limit"
    UNREADABLE = "unreadable"
    FAILURES = "failures"
    TERMINATIONS = "terminations"
    REFILL_GUARD = "refill_guard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL that receives messages."""

    name: str
    url: str = field(repr=False)
    """Often a secret in itself: it is all that one needs in order to write there."""
    on: frozenset[Occasion]
    every: Duration
    """Events within this time go into one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A policy file, and the files that it names."""

    rules: Rules
    """All policies, whichever servers they apply to."""
    interval: Duration
    min_interval: Duration
    servers: tuple[Server, ...]
    """Empty if the environment names the server, or if `servers_from` finds none at the moment."""
    warnings: tuple[Mistake, ...]
    policy_labels: tuple[tuple[str, LabelSelector], ...] = ()
    """The servers of those policies that apply to some servers only, by the policy's name."""
    notify: tuple[Webhook, ...] = ()
    servers_from: tuple[str, ...] = ()
    """Globs of files that list servers, relative to the working directory."""
    secrets: tuple[str, ...] = ()
    """Files that contain the URLs of webhooks, relative to the working directory."""

    @property
    def names_servers(self) -> bool:
        """Return True if the file says which servers to watch, even if none is found at the moment."""
        return bool(self.servers or self.servers_from)

    def rules_for(self, server: Server) -> Rules:
        """Return the rules without the policies that do not apply to this server."""
        if not self.policy_labels:
            return self.rules
        labels = dict(self.policy_labels)
        policies = (p for p in self.rules.policies if labels.get(p.name, EVERY_SERVER).selects(server.labels))
        return replace(self.rules, policies=tuple(policies))
