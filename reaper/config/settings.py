"""What a policy file settles, once it is found to be in order."""

from dataclasses import dataclass
from typing import Final

from reaper.config.mistakes import Mistake
from reaper.policy.rules import Rules
from reaper.policy.spans import SECOND, Span

DEFAULT_INTERVAL: Final = Span(10 * SECOND)
DEFAULT_PRECISION: Final = Span(SECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to watch."""

    name: str
    dsn: str
    """Without a password; empty for libpq's own PG* variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole of a policy file."""

    rules: Rules
    interval: Span
    precision: Span
    servers: tuple[Server, ...]
    """None, when the environment names the server."""
    warnings: tuple[Mistake, ...]
