"""The criteria of a policy: all of them must hold, and what is not known holds for nobody."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from reaper.policy.selector import NO_KEYS, Selector
from reaper.policy.session import ACTIVE, Session, Snapshot
from reaper.policy.spans import Instant, Span, exact_words, since, words


class Age(NamedTuple):
    """An age that a policy asks for."""

    key: str
    word: str
    began: Instant | None
    limit: Span

    def reached(self, now: Instant) -> bool:
        """Whether it has lasted long enough; an unknown or negative age never has."""
        age = since(self.began, now)
        return age is not None and age >= max(self.limit, 0)

    def words(self, now: Instant) -> str:
        """The age beside its limit: `idle 12m31s, limit 10m`."""
        age = since(self.began, now)
        said = f"not {self.word}" if age is None else f"{self.word} {words(age)}"
        return f"{said}, limit {exact_words(self.limit)}"


class Answer(NamedTuple):
    """What one criterion says of one session, in words."""

    criterion: str
    holds: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Who is meant, in which state, and for how long."""

    states: tuple[str, ...]
    selector: Selector = NO_KEYS
    idle_for: Span | None = None
    transaction_for: Span | None = None
    connected_for: Span | None = None
    running_for: Span | None = None
    holds_back_vacuum: int | None = None
    blocking: bool = False

    def holds(self, session: Session, snapshot: Snapshot) -> bool:
        """Whether every criterion but the selector holds, which is asked once for each identity."""
        if self.blocking and not waiters(session, snapshot):
            return False
        return self.holds_but_for_facts(session, snapshot.at)

    def holds_but_for_facts(self, session: Session, now: Instant) -> bool:
        """Whether state, ages and horizon hold: what can be said before asking for facts."""
        if not self._in_state(session, now):
            return False
        ages = tuple(self.ages(session))
        return (
            # Without an age nobody is meant, not everybody.
            bool(ages)
            and all(age.reached(now) for age in ages)
            and (self.holds_back_vacuum is None or self._holds_back(session))
        )

    @property
    def in_state_for(self) -> Span:
        """Who has been in its state for a shorter time is not meant."""
        return Span(max(self.idle_for or 0, 0))

    def ages(self, session: Session) -> Iterator[Age]:
        """Each age that is asked for."""
        # Who is at work is not idle, and the start of the last query is the age of nothing once it is over.
        active, since_when = session.state == ACTIVE, session.counted_from
        # One after the other and not in a table: this is what a cycle does most often.
        if self.idle_for is not None:
            began = None if active else session.state_change
            yield Age("idle_for", "idle", _believed(began, since_when), self.idle_for)
        if self.transaction_for is not None:
            began = _believed(session.xact_start, since_when)
            yield Age("transaction_for", "in transaction", began, self.transaction_for)
        if self.connected_for is not None:
            began = _believed(session.id.backend_start, since_when)
            yield Age("connected_for", "connected", began, self.connected_for)
        if self.running_for is not None:
            began = session.query_start if active else None
            yield Age("running_for", "running", _believed(began, since_when), self.running_for)

    def answers(self, session: Session, snapshot: Snapshot) -> Iterator[Answer]:
        """What each criterion says of this session, for a person."""
        yield Answer(
            "state",
            self._in_state(session, snapshot.at),
            f"{session.state!r}, wanted {', '.join(self.states)}",
        )
        for key, patterns, value in self.selector.given(session.identity):
            fits = any(pattern.matches(value) for pattern in patterns)
            yield Answer(key, fits, f"{value!r}, wanted {', '.join(map(str, patterns))}")
        yield from self._telling_answers(session, snapshot)

    def reason(self, session: Session, snapshot: Snapshot) -> str:
        """Why a session is condemned: its ages beside their limits, and whom it harms."""
        return "; ".join(answer.words for answer in self._telling_answers(session, snapshot))

    def due(self, session: Session) -> Instant | None:
        """When the last age is reached if the session stays as it is; None when it never will be."""
        ages = tuple(self.ages(session))
        if not ages or session.state not in self.states or session.state_change is None:
            return None
        moments = [session.state_change]
        for age in ages:
            if age.began is None:
                return None
            moments.append(Instant(age.began + max(age.limit, 0)))
        return max(moments)

    def _telling_answers(self, session: Session, snapshot: Snapshot) -> Iterator[Answer]:
        ages = tuple(self.ages(session))
        if not ages:
            yield Answer("age", False, "asks for no age, and so means nobody")  # noqa: FBT003  a field of a row
        for age in ages:
            yield Answer(age.key, age.reached(snapshot.at), age.words(snapshot.at))
        if self.holds_back_vacuum is not None:
            by = "an unknown number of" if session.xid_age is None else session.xid_age
            said = f"holds back vacuum by {by} transactions, limit {self.holds_back_vacuum}"
            yield Answer("holds_back_vacuum", self._holds_back(session), said)
        if self.blocking:
            count = waiters(session, snapshot)
            said = f"holds up {count} session{'' if count == 1 else 's'}"
            if snapshot.facts.waiters is None:
                said = "it is not known whom it holds up"
            yield Answer("blocking", count > 0, said)

    def _in_state(self, session: Session, now: Instant) -> bool:
        # A state from after this look, by a clock that was set back, is a state of which nothing is known.
        return (
            session.state in self.states and session.state_change is not None and session.state_change <= now
        )

    def _holds_back(self, session: Session) -> bool:
        limit = self.holds_back_vacuum
        return limit is not None and session.xid_age is not None and session.xid_age >= limit


def _believed(began: Instant | None, counted_from: Instant | None) -> Instant | None:
    """The moment from which an age can be believed."""
    if began is None or counted_from is None:
        return began
    return max(began, counted_from)


def waiters(session: Session, snapshot: Snapshot) -> int:
    """How many sessions wait for this one; nobody as long as it was not asked."""
    return (snapshot.facts.waiters or {}).get(session.id.pid, 0)
