"""The answers: verdicts, the plan of a cycle, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from reaper.policy.rules import Action, Mode, Policy
from reaper.policy.session import Session
from reaper.policy.spans import Instant


class Spared(StrEnum):
    """By what a session was spared."""

    UNMATCHED = "unmatched"
    UNKNOWN = "unknown"
    PROTECTION = "protection"
    ALLOWLIST = "allowlist"
    WHEN = "when"
    DURING = "during"
    KEEP = "keep"
    CAP = "cap"
    BRAKE = "brake"
    FIRST_SIGHTING = "first-sighting"
    CHURN = "churn"
    PACE = "pace"
    IN_VAIN = "in-vain"
    REHEARSED = "rehearsed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reap:
    """A session that a policy condemns."""

    session: Session
    policy: Policy
    reason: str

    @property
    def mode(self) -> Mode:
        """Whether this happens or is only rehearsed."""
        return self.policy.mode

    @property
    def action(self) -> Action:
        """What is to be done with the session."""
        return self.policy.action


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A session that lives, and why."""

    session: Session
    by: Spared
    reason: str
    policy: Policy | None = None
    """The policy whose match held, if any did."""
    protection: str | None = None
    """The name of the protection, when one spared it."""


Verdict = Reap | Spare


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakeTrip:
    """A policy that would have taken too large a share, and therefore acts on nobody."""

    policy: Policy
    condemned: int
    clients: int
    reason: str


def longest_idle_first(session: Session) -> tuple[Instant, int, Instant]:
    """The order in which a pace takes sessions; total, so that a plan never depends on the order of rows."""
    idle_since = session.id.backend_start if session.state_change is None else session.state_change
    return (idle_since, session.id.pid, session.id.backend_start)


class Result(StrEnum):
    """What became of a condemned session."""

    TERMINATED = "terminated"
    """Confirmed gone."""
    CANCELLED = "cancelled"
    """The statement is confirmed to be over, the session lives."""
    SIGNALLED = "signalled"
    """The signal was sent; the session was still there when we last looked."""
    WOKE = "woke"
    """It changed before the act, and lives."""
    GONE = "gone"
    """It had left by itself."""
    DENIED = "denied"
    """The server refused."""
    UNKNOWN = "unknown"
    """The connection or the reaper was lost meanwhile."""
    WITHDRAWN = "withdrawn"
    """It was intended, and not attempted: the reaper was stopping, or had lost its connection before."""
    REHEARSED = "rehearsed"
    """A dry run: nothing was done."""


class Act(NamedTuple):
    """When the act looked once more and when it had signalled: between the two a session may wake unseen."""

    looked: Instant
    signalled: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one reap, and when by the server's clock."""

    result: Result
    detail: str | None = None
    at: Instant | None = None
    act: Act | None = None
    """Only of sessions that were signalled."""
