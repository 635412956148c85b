"""What the pages show, as values: the same for a browser, for JSON, and for `reaper usage`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reaper.insight.usage.trend import Usage, Values
from reaper.policy.session import Identity

FORMAT: Final = 1
"""The version of these values as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLine:
    """One server of the fleet, in short."""

    name: str
    state: str
    why: str
    total: int | None
    usable: int | None
    used: int | None
    """As the last cycle has seen it; None before the first, and while there is no connection."""
    trend: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLine:
    """One policy at one server, and what has come of it since this process began."""

    name: str
    mode: str
    description: str | None
    matching: int | None
    """How many it condemns now and has not rehearsed before; None where nobody has looked."""
    braked: bool
    """Whether its brake holds."""
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueLine:
    """A session that will fall under a policy if it stays as it is."""

    pid: int
    session: Identity
    state: str | None
    policy: str
    mode: str
    due_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentEvent:
    """What was done, or would have been."""

    at: str | None
    """By the server's clock."""
    server: str
    policy: str
    mode: str
    outcome: str
    pid: int | None
    session: Identity | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """What a rehearsal has shown of one policy, over all servers."""

    policy: str
    advice: str
    said: str
    acts: int
    """Sessions that it would have terminated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAloneLine:
    """A pool that refills at once, and that a policy leaves alone for a while."""

    server: str
    policy: str
    session: Identity
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """All there is to see of one server."""

    name: str
    usage: Usage | None
    seen_s_ago: float | None
    next_cycle_s: float | None
    soonest: tuple[DueLine, ...]
    policies: tuple[PolicyLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A reaper at work: its servers, one of them in full, and what happened last."""

    version: str
    up_s: float
    dry_run: bool
    rules: str
    reloaded: bool
    """Whether the policy file on disk is the one in force."""
    servers: tuple[ServerLine, ...]
    """The fullest first, and before them those that are not looked after."""
    more_servers: int
    shown: ServerView | None
    """The server that was asked for, or the only one."""
    recent_events: tuple[RecentEvent, ...]
    """The latest first."""
    verdicts: tuple[VerdictLine, ...]
    left_alone: tuple[LeftAloneLine, ...]
