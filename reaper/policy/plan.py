"""The plan of a cycle: what happens to each session of the snapshot, and why."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from reaper.policy.protections import BUILT_IN, SELF
from reaper.policy.refill_guard import BackOff, Evidence
from reaper.policy.rules import Action, Mode, Policy
from reaper.policy.session import KINDS, STATES, Identity, Session, Snapshot
from reaper.policy.time import Instant


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
        """Whether this is enforced or a dry run."""
        return self.policy.mode

    @property
    def action(self) -> Action:
        """The action for the session."""
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
    """A policy that exceeds its safety limit and therefore terminates no session."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refilling:
    """A group that a policy leaves alone from now on."""

    policy: Policy
    identity: Identity
    at: Instant
    evidence: Evidence
    left_alone: BackOff


def unknown(session: Session) -> str | None:
    """Why nothing can be said about a session, or nothing."""
    if session.kind not in KINDS:
        return f"kind {session.kind!r} is none that a policy can name"
    if session.identity.role is None:
        return "its role is not known"  # dropped meanwhile: no allowlist and no protection could name it
    if session.state is None:
        return "state is not known"
    if session.state not in STATES:
        return f"state {session.state!r} is none that a policy can name"
    return "the age of its state is not known" if session.state_change is None else None


def beyond_policies(session: Session, snapshot: Snapshot) -> Spare | None:
    """Spare a session that no policy may judge, whatever it says."""
    if own := BUILT_IN[SELF](session, snapshot):
        return Spare(session=session, by=Spared.PROTECTION, reason=f"protected: {own}", protection=SELF)
    if reason := unknown(session):
        return Spare(session=session, by=Spared.UNKNOWN, reason=f"not known: {reason}")
    return None


def unmatched(session: Session) -> Spare:
    """Spare a session that no policy means."""
    return Spare(session=session, by=Spared.UNMATCHED, reason="no policy matches")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The verdicts of one cycle, after pace and brakes: every session exactly once."""

    snapshot: Snapshot = field(repr=False, compare=False)
    judged: tuple[Verdict, ...]
    """Whom policies were asked about; no policy can mean anybody else by now."""
    rehearsed_beside: tuple[Reap, ...] = ()
    """What dry-run policies would do with sessions that an enforcing policy takes anyway."""
    brakes: tuple[BrakeTrip, ...] = ()

    @property
    def at(self) -> Instant:
        """The moment of the look."""
        return self.snapshot.at

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One per session, ordered by identity; built on request, because most sessions match no policy."""
        judged = {verdict.session.id: verdict for verdict in self.judged}
        return tuple(
            judged.get(session.id) or beyond_policies(session, self.snapshot) or unmatched(session)
            for session in sorted(self.snapshot.sessions, key=lambda session: session.id)
        )

    @property
    def reaps(self) -> tuple[Reap, ...]:
        """What enforcing policies condemn, the longest idle first."""
        return self._reaps(Mode.ENFORCE)

    @property
    def rehearsals(self) -> tuple[Reap, ...]:
        """What dry-run policies would condemn, the longest idle first."""
        return self._reaps(Mode.DRY_RUN)

    def _reaps(self, mode: Mode) -> tuple[Reap, ...]:
        every = (*self.judged, *self.rehearsed_beside)
        chosen = [verdict for verdict in every if isinstance(verdict, Reap) and verdict.mode is mode]
        return tuple(sorted(chosen, key=lambda reap: longest_idle_first(reap.session)))

    @property
    def spares(self) -> tuple[Spare, ...]:
        """Every session that lives."""
        return tuple(verdict for verdict in self.verdicts if isinstance(verdict, Spare))

    @property
    def matched_spares(self) -> tuple[Spare, ...]:
        """Every session that lives although a policy matches it."""
        return tuple(verdict for verdict in self.judged if isinstance(verdict, Spare) and verdict.policy)
