"""What happens to a session after its dry run: it is checked at intervals until it has an outcome.

A check shows only the present state of a session. A session that was used and then closed between two checks
counts as left; the time without a check is logged with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from reaper.policy.plan import Candidate
from reaper.policy.session import ACTIVE, Session, SessionId, Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp, words


class DryRunOutcome(StrEnum):
    """What happened to a session that would have been terminated."""

    UNUSED = "unused"
    """It is still there, and was not used while it was watched."""
    LEFT = "left"
    """It exited by itself; a use just before cannot be excluded."""
    USED_AGAIN = "used-again"
    """Its client used it again, and a termination would have been missed."""
    UNKNOWN = "unknown"
    """It was not checked, or something else ended it."""


class DryRunKey(NamedTuple):
    """Identifies one dry run: an unchanged session counts once, in any number of cycles and restarts."""

    policy: str
    rules: str
    id: SessionId
    state_change: Timestamp | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunSession:
    """A session at its dry run."""

    intent: str
    candidate: Candidate
    at: Timestamp
    cycle: str
    rules: str
    """The digest of the policy file."""

    @property
    def id(self) -> SessionId:
        """The session."""
        return self.candidate.session.id

    @property
    def key(self) -> DryRunKey:
        """The key of the dry run."""
        return DryRunKey(self.candidate.policy.name, self.rules, self.id, self.candidate.session.state_change)

    @property
    def idle(self) -> Duration:
        """The time in its state at the dry run."""
        since = self.candidate.session.state_change
        return Duration(0 if since is None else self.at - since)


class SessionTimes(NamedTuple):
    """The times of a session that show whether it was used."""

    state_change: Timestamp | None
    query_start: Timestamp | None
    xact_start: Timestamp | None

    @classmethod
    def of(cls, session: Session) -> "SessionTimes":
        """The times of this session."""
        return cls(session.state_change, session.query_start, session.xact_start)


class CheckTimes(NamedTuple):
    """The times of this check and of the one before."""

    at: Timestamp
    before: Timestamp
    longest_gap: Duration
    """After a longer time without a check, the outcome of a session that is gone is unknown."""

    @property
    def gap(self) -> Duration:
        """The time between the two checks."""
        return Duration(max(self.at - self.before, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedOutcome:
    """The outcome of one dry run, as last observed."""

    watched: DryRunSession
    outcome: DryRunOutcome
    seen: Timestamp
    after: Duration
    """From the dry run until it was used, was gone, or was checked last."""
    unseen: Duration = Duration(0)  # noqa: RUF009 (a number)
    """The time without a check before it was seen."""
    used_at: Timestamp | None = None
    reason: str


def times_in(snapshot: Snapshot, watched: Iterable[DryRunSession]) -> dict[SessionId, SessionTimes | None]:
    """The watched sessions in a snapshot; None: exited. Sessions that it may leave out are missing."""
    ids = {one.id for one in watched}
    found: dict[SessionId, SessionTimes | None] = {
        session.id: SessionTimes.of(session) for session in snapshot.sessions if session.id in ids
    }
    if snapshot.left_out is None and not snapshot.unreadable:
        found.update(dict.fromkeys(ids - found.keys()))
    return found


def outcomes_of(
    watched: Iterable[DryRunSession], seen: Mapping[SessionId, SessionTimes | None], check: CheckTimes
) -> list[ObservedOutcome]:
    """The outcomes of the watched sessions that have one now."""
    found = (_outcome(one, seen[one.id], check) for one in watched if one.id in seen)
    return [one for one in found if one]


def unused(one: DryRunSession, at: Timestamp) -> ObservedOutcome:
    """The outcome of a session that was not used until now."""
    after = _after(one, at)
    reason = f"not used again in {words(after)}"
    return ObservedOutcome(watched=one, outcome=DryRunOutcome.UNUSED, seen=at, after=after, reason=reason)


def unknown(one: DryRunSession, at: Timestamp, why: str) -> ObservedOutcome:
    """The outcome of a session that can no longer be observed."""
    after = _after(one, at)
    return ObservedOutcome(watched=one, outcome=DryRunOutcome.UNKNOWN, seen=at, after=after, reason=why)


def report_due(one: DryRunSession, at: Timestamp, reported: Duration) -> bool:
    """Return True if an unused session is due for a report.

    First when it was watched as long as it had been idle before, then each time this has doubled.
    """
    return _after(one, at) >= max(one.idle, 2 * reported, SECOND)


def _outcome(one: DryRunSession, now: SessionTimes | None, check: CheckTimes) -> ObservedOutcome | None:
    was: Final = one.candidate.session.state_change
    if now is None:
        return _gone(one, check)
    if now.state_change is None or now.state_change == was:
        return None
    # The earliest time that the server still knows: there may have been earlier uses since the last check.
    used_at = min((each for each in now if each is not None and each > (was or 0)), default=check.at)
    after = _after(one, used_at)
    if one.candidate.session.state == ACTIVE:
        reason = f"its statement ended by itself after {words(after)}"
    else:
        reason = f"used again after {words(after)}, having been idle for {words(Duration(one.idle + after))}"
    return ObservedOutcome(
        watched=one,
        outcome=DryRunOutcome.USED_AGAIN,
        seen=check.at,
        after=after,
        unseen=check.gap,
        used_at=used_at,
        reason=reason,
    )


def _gone(one: DryRunSession, check: CheckTimes) -> ObservedOutcome:
    gap, after = check.gap, _after(one, check.at)
    if gap > check.longest_gap:
        return unknown(one, check.at, f"it exited during {words(gap)} without a check")
    reason = f"left by itself after {words(after)}; the last check was {words(gap)} before"
    left = DryRunOutcome.LEFT
    return ObservedOutcome(watched=one, outcome=left, seen=check.at, after=after, unseen=gap, reason=reason)


def _after(one: DryRunSession, moment: Timestamp) -> Duration:
    return Duration(max(moment - one.at, 0))
