"""What becomes of the sessions that a rehearsal took: looked at until something becomes of them.

A look tells only what a session is like now. Who was used and closed between two looks has left, as far as
anybody can tell from outside; how long nobody had looked by then is told beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from reaper.policy.plan import Candidate
from reaper.policy.session import ACTIVE, Session, SessionId, Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp, words


class DryRunOutcome(StrEnum):
    """What became of a session that would have been terminated."""

    UNUSED = "unused"
    """It is still there, and was never used again for as long as it was watched."""
    LEFT = "left"
    """It has gone by itself; whether it was used just before cannot be told."""
    USED_AGAIN = "used-again"
    """Its client used it again, and would have found it gone."""
    UNKNOWN = "unknown"
    """Nobody looked, or something else ended it."""


class Key(NamedTuple):
    """One act of a rehearsal: who stays as it was is one, however often the same rules rehearse it."""

    policy: str
    rules: str
    id: SessionId
    state_change: Timestamp | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunSession:
    """A session that a rehearsal took, as it was then."""

    intent: str
    candidate: Candidate
    at: Timestamp
    """When it would have been terminated."""
    cycle: str
    rules: str
    """The digest of the policy file by which it was judged."""

    @property
    def id(self) -> SessionId:
        """The session."""
        return self.candidate.session.id

    @property
    def key(self) -> Key:
        """The act."""
        return Key(self.candidate.policy.name, self.rules, self.id, self.candidate.session.state_change)

    @property
    def idle(self) -> Duration:
        """How long it had been as it was, at the act."""
        since = self.candidate.session.state_change
        return Duration(0 if since is None else self.at - since)


class SessionTimes(NamedTuple):
    """How a watched session stands now."""

    state_change: Timestamp | None
    query_start: Timestamp | None
    xact_start: Timestamp | None

    @classmethod
    def of(cls, session: Session) -> "SessionTimes":
        """As a look at the server showed it."""
        return cls(session.state_change, session.query_start, session.xact_start)


class Look(NamedTuple):
    """When the watched were looked at, and when the time before."""

    at: Timestamp
    before: Timestamp
    blind_after: Duration
    """After so long without a look nobody says that who has gone was not used before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedOutcome:
    """What became of one watched session."""

    watched: DryRunSession
    outcome: DryRunOutcome
    seen: Timestamp
    """When that was seen."""
    after: Duration
    """From the would-be termination until it was used again, was found gone, or was watched no longer."""
    unseen: Duration
    """For how long nobody had looked when it was seen."""
    used_at: Timestamp | None = None
    reason: str


def shown(watched: Iterable[DryRunSession], snapshot: Snapshot) -> dict[SessionId, SessionTimes | None]:
    """The watched sessions in a snapshot; None: exited. Sessions that it may leave out are missing."""
    ids = {one.id for one in watched}
    found: dict[SessionId, SessionTimes | None] = {
        session.id: SessionTimes.of(session) for session in snapshot.sessions if session.id in ids
    }
    if snapshot.left_out is None and not snapshot.unreadable:
        found.update(dict.fromkeys(ids - found.keys()))
    return found


def outcomes_of(
    watched: Iterable[DryRunSession], seen: Mapping[SessionId, SessionTimes | None], look: Look
) -> list[ObservedOutcome]:
    """The watched sessions that now have an outcome."""
    found = (_outcome(one, seen[one.id], look) for one in watched if one.id in seen)
    return [one for one in found if one]


_NOT: Final = Duration(0)


def unused(one: DryRunSession, at: Timestamp) -> ObservedOutcome:
    """Nothing has become of it until now."""
    reason = f"not used again in {words(_after(one, at))}"
    return ObservedOutcome(
        watched=one, outcome=DryRunOutcome.UNUSED, seen=at, after=_after(one, at), unseen=_NOT, reason=reason
    )


def tells_by_now(one: DryRunSession, at: Timestamp, told: Duration) -> bool:
    """Whether it is worth telling that it is unused so far.

    First when it has been watched as long as it had been idle at the act, then whenever that has doubled.
    """
    return _after(one, at) >= max(one.idle, 2 * told, SECOND)


def unknown(one: DryRunSession, at: Timestamp, why: str) -> ObservedOutcome:
    """It cannot be told what became of it, or would have."""
    return ObservedOutcome(
        watched=one, outcome=DryRunOutcome.UNKNOWN, seen=at, after=_after(one, at), unseen=_NOT, reason=why
    )


def _outcome(one: DryRunSession, now: SessionTimes | None, look: Look) -> ObservedOutcome | None:
    was = one.candidate.session.state_change
    if now is None:
        return _gone(one, look)
    if now.state_change is None or now.state_change == was:
        return None
    # The latest use is the earliest that is known: there may have been others since the look before.
    moments = (now.state_change, now.query_start, now.xact_start)
    used_at = min((each for each in moments if each is not None and each > (was or 0)), default=look.at)
    after = _after(one, used_at)
    return ObservedOutcome(
        watched=one,
        outcome=DryRunOutcome.USED_AGAIN,
        seen=look.at,
        after=after,
        unseen=_unseen(look),
        used_at=used_at,
        reason=_came_back(one, after),
    )


def _came_back(one: DryRunSession, after: Duration) -> str:
    if one.candidate.session.state == ACTIVE:
        return f"its statement came to its end by itself after {words(after)}"
    return f"used again after {words(after)}, having been idle for {words(Duration(one.idle + after))}"


def _gone(one: DryRunSession, look: Look) -> ObservedOutcome:
    unseen = _unseen(look)
    if unseen > look.blind_after:
        return unknown(one, look.at, f"it left while nobody looked for {words(unseen)}")
    after = _after(one, look.at)
    reason = f"left by itself after {words(after)}; in its last {words(unseen)} nobody looked"
    return ObservedOutcome(
        watched=one, outcome=DryRunOutcome.LEFT, seen=look.at, after=after, unseen=unseen, reason=reason
    )


def _after(one: DryRunSession, moment: Timestamp) -> Duration:
    return Duration(max(moment - one.at, 0))


def _unseen(look: Look) -> Duration:
    return Duration(max(look.at - look.before, 0))
