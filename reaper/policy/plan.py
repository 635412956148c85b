"""The plan of a cycle: what happens to each session of the snapshot, and why."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from reaper.policy.protections import BUILT_IN, SELF
from reaper.policy.rules import Action, Mode, Policy
from reaper.policy.session import KINDS, STATES, Session, Snapshot
from reaper.policy.time import Timestamp


class SkipReason(StrEnum):
    """Why a session is skipped; a limit has the name of its key in the policy file."""

    UNMATCHED = "unmatched"
    UNKNOWN = "unknown"
    PROTECTION = "protection"
    ALLOWLIST = "allowlist"
    WHEN = "when"
    DURING = "during"
    KEEP = "keep"
    MAX_SESSIONS = "max_sessions"
    SAFETY_LIMIT = "safety_limit"
    FIRST_SIGHTING = "first-sighting"
    REFILL_GUARD = "refill_guard"
    MAX_PER_CYCLE = "max_per_cycle"
    NO_EFFECT = "no-effect"
    """Earlier signals to this session changed nothing."""
    DRY_RUN = "dry-run"
    """An earlier cycle has already dry-run this session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A session that a policy terminates or cancels, or would in a dry run."""

    session: Session
    policy: Policy
    reason: str

    @property
    def mode(self) -> Mode:
        """Whether this is enforced or a dry run."""
        return self.policy.mode

    @property
    def action(self) -> Action:
        """The action for the session."""
        return self.policy.action


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A session that is not touched, and why."""

    session: Session
    by: SkipReason
    reason: str
    policy: Policy | None = None
    """The policy whose criteria the session meets, if any."""
    protection: str | None = None
    """The name of the protection, if one applies."""


Decision = Candidate | Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyLimitTrip:
    """A policy that exceeds its safety limit and therefore terminates no session."""

    policy: Policy
    matched: int
    clients: int
    reason: str


def longest_idle_first(session: Session) -> tuple[Timestamp, int, Timestamp]:
    """The order in which limits admit sessions; total, so that the order of rows never matters."""
    idle_since = session.id.backend_start if session.state_change is None else session.state_change
    return (idle_since, session.id.pid, session.id.backend_start)


class Result(StrEnum):
    """What happened to a candidate."""

    TERMINATED = "terminated"
    """Confirmed gone."""
    CANCELLED = "cancelled"
    """The statement is confirmed to be over; the session remains."""
    SIGNALLED = "signalled"
    """The signal was sent; the session was still there at the last check."""
    CHANGED = "changed"
    """It changed before the signal, and was not touched."""
    GONE = "gone"
    """It had exited by itself."""
    DENIED = "denied"
    """The server refused the signal."""
    UNKNOWN = "unknown"
    """The connection or the reaper was lost meanwhile."""
    WITHDRAWN = "withdrawn"
    """Intended and not attempted: the reaper was stopping, or had lost its connection before."""
    DRY_RUN = "dry-run"
    """A dry run: nothing was done."""


class Act(NamedTuple):
    """When the session was checked again and when it was signalled: between the two it may change unseen."""

    looked: Timestamp
    signalled: Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to one candidate, and when by the server's clock."""

    result: Result
    detail: str | None = None
    at: Timestamp | None = None
    act: Act | None = None
    """Only of sessions that were signalled."""


def unknown(session: Session) -> str | None:
    """Why no policy can judge this session, or None."""
    if session.kind not in KINDS:
        return f"kind {session.kind!r} is none that a policy can name"
    if session.identity.role is None:
        return "its role is not known"  # a dropped role: no allowlist and no protection could name it
    if session.state is None:
        return "state is not known"
    if session.state not in STATES:
        return f"state {session.state!r} is none that a policy can name"
    return "the age of its state is not known" if session.state_change is None else None


def beyond_policies(session: Session, snapshot: Snapshot) -> Skip | None:
    """Skip a session that no policy may judge, whatever it says."""
    if own := BUILT_IN[SELF](session, snapshot):
        return Skip(session=session, by=SkipReason.PROTECTION, reason=f"protected: {own}", protection=SELF)
    if reason := unknown(session):
        return Skip(session=session, by=SkipReason.UNKNOWN, reason=f"not known: {reason}")
    return None


def unmatched(session: Session) -> Skip:
    """Skip a session that no policy matches."""
    return Skip(session=session, by=SkipReason.UNMATCHED, reason="no policy matches")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The decisions of one cycle, after all limits: one for each session."""

    snapshot: Snapshot = field(repr=False, compare=False)
    decided: tuple[Decision, ...]
    """Of the sessions that a policy could match by now; no other session can be a candidate."""
    dry_run_beside: tuple[Candidate, ...] = ()
    """Dry-run candidates that an enforcing policy terminates anyway."""
    trips: tuple[SafetyLimitTrip, ...] = ()

    @property
    def at(self) -> Timestamp:
        """The time of the snapshot."""
        return self.snapshot.at

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One per session, ordered by identity; built on request, because most sessions match no policy."""
        decided = {decision.session.id: decision for decision in self.decided}
        return tuple(
            decided.get(session.id) or beyond_policies(session, self.snapshot) or unmatched(session)
            for session in sorted(self.snapshot.sessions, key=lambda session: session.id)
        )

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of enforcing policies, the longest idle first."""
        return self._candidates(Mode.ENFORCE)

    @property
    def dry_run_candidates(self) -> tuple[Candidate, ...]:
        """The candidates of dry-run policies, the longest idle first."""
        return self._candidates(Mode.DRY_RUN)

    def _candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        every = (*self.decided, *self.dry_run_beside)
        chosen = [one for one in every if isinstance(one, Candidate) and one.mode is mode]
        return tuple(sorted(chosen, key=lambda candidate: longest_idle_first(candidate.session)))

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Every session that is skipped."""
        return tuple(decision for decision in self.decisions if isinstance(decision, Skip))

    @property
    def matched_skips(self) -> tuple[Skip, ...]:
        """Every session that is skipped although a policy matches it."""
        return tuple(decision for decision in self.decided if isinstance(decision, Skip) and decision.policy)
