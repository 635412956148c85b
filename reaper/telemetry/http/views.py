"""What the pages show, as values: the same for a browser, for JSON, and for `reaper usage`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reaper.insight.dryrun.assessment import Assessment
from reaper.insight.usage.trend import Usage, Values
from reaper.policy.session import Identity

FORMAT: Final = 1
"""The version of these values as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLine:
    """One server in short."""

    name: str
    state: str
    why: str
    total: int | None
    usable: int | None
    used: int | None
    """In the last cycle; None before the first, and while there is no connection."""
    trend: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLine:
    """One policy at one server, and its outcomes since the start of this process."""

    name: str
    mode: str
    description: str | None
    matching: int | None
    """Sessions that it would terminate now, without those that had their dry run; None before a snapshot."""
    tripped: bool
    """True if its plan exceeds the safety limit."""
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueLine:
    """A session that will be due under a policy if it does not change."""

    pid: int
    session: Identity
    state: str | None
    policy: str
    mode: str
    due_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentEvent:
    """One action, or what a dry run did not do."""

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
class AssessmentLine:
    """The assessment of one policy's dry run, over all servers, in short."""

    policy: str
    advice: str
    said: str
    acts: int
    """Sessions that it would have terminated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedPool:
    """A pool that reopens its sessions at once, and that the refill guard pauses for a policy."""

    server: str
    policy: str
    session: Identity
    until: str | None
    """By the server's clock."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAssessment:
    """What a service has learnt from dry runs and terminations since its start."""

    policies: tuple[Assessment, ...] = ()
    watched: int = 0
    """Sessions after their dry run whose outcome is still open."""
    forgotten: int = 0
    """Older dry runs, which only the audit log still has."""
    refill_guarded: tuple[GuardedPool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One server in full."""

    name: str
    usage: Usage | None
    seen_s_ago: float | None
    next_cycle_s: float | None
    soonest: tuple[DueLine, ...]
    policies: tuple[PolicyLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A service: its servers, one of them in full, and the recent events."""

    version: str
    up_s: float
    dry_run: bool
    rules: str
    reloaded: bool
    """True if the policy file on disk is the one in force."""
    servers: tuple[ServerLine, ...]
    """Those that do not work first, then the fullest."""
    more_servers: int
    shown: ServerView | None
    """The server of the request, or the only one."""
    recent_events: tuple[RecentEvent, ...]
    """The latest first."""
    assessments: tuple[AssessmentLine, ...]
    refill_guarded: tuple[GuardedPool, ...]
