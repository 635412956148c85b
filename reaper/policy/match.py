"""The criteria of a policy: all must hold, and an unknown value never holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from reaper.policy.selector import NO_KEYS, Selector
from reaper.policy.session import ACTIVE, Session, Snapshot
from reaper.policy.time import Instant, Span, exact_words, since, words


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


class _Asked(NamedTuple):
    """One kind of age, and how it is read from a session."""

    key: str
    word: str
    began: Callable[[Session], Instant | None]
    limit: Span

    def since(self, session: Session) -> Instant | None:
        """The moment from which this age of a session can be believed."""
        began, counted_from = self.began(session), session.counted_from
        return began if began is None or counted_from is None else max(began, counted_from)


_AGES: Final[tuple[tuple[str, str, Callable[[Session], Instant | None]], ...]] = (
    # Who is at work is not idle, and the start of the last query is the age of nothing once it is over.
    ("idle_for", "idle", lambda session: None if session.state == ACTIVE else session.state_change),
    ("transaction_for", "in transaction", lambda session: session.xact_start),
    ("connected_for", "connected", lambda session: session.id.backend_start),
    ("running_for", "running", lambda session: session.query_start if session.state == ACTIVE else None),
)


class Answer(NamedTuple):
    """What one criterion says of one session, in words."""

    criterion: str
    holds: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The sessions that a policy matches: selector, states and ages."""

    states: tuple[str, ...]
    selector: Selector = NO_KEYS
    idle_for: Span | None = None
    transaction_for: Span | None = None
    connected_for: Span | None = None
    running_for: Span | None = None
    holds_back_vacuum: int | None = None
    blocking: bool = False
    _asked: "tuple[_Asked, ...]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out once which ages are asked for."""
        limits = (self.idle_for, self.transaction_for, self.connected_for, self.running_for)
        asked = (_Asked(*age, limit) for age, limit in zip(_AGES, limits, strict=True) if limit is not None)
        object.__setattr__(self, "_asked", tuple(asked))

    def holds(self, session: Session, snapshot: Snapshot) -> bool:
        """Whether every criterion but the selector holds, which is asked once for each identity."""
        if self.blocking and not waiters(session, snapshot):
            return False
        return self.holds_but_for_facts(session, snapshot.at)

    def holds_but_for_facts(self, session: Session, now: Instant) -> bool:
        """Whether state, ages and horizon hold: what can be said before asking for facts."""
        if not self._asked or not self._in_state(session, now):
            return False  # without an age nobody is meant, not everybody
        for asked in self._asked:  # what a cycle does most often
            began = asked.since(session)
            if began is None or now - began < max(asked.limit, 0):
                return False
        return self.holds_back_vacuum is None or self._holds_back(session)

    @property
    def in_state_for(self) -> Span:
        """Sessions that have been in their state for a shorter time are not matched."""
        return Span(max(self.idle_for or 0, 0))

    def ages(self, session: Session) -> Iterator[Age]:
        """Each age that is asked for."""
        for asked in self._asked:
            yield Age(asked.key, asked.word, asked.since(session), asked.limit)

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
        """Why a session is matched: its ages beside their limits, and the sessions that it blocks."""
        return "; ".join(answer.words for answer in self._telling_answers(session, snapshot))

    def due(self, session: Session) -> Instant | None:
        """When the last age is reached if the session stays as it is; None when it never will be."""
        if not self._asked or session.state not in self.states or session.state_change is None:
            return None
        due = session.state_change
        for asked in self._asked:
            began = asked.since(session)
            if began is None:
                return None
            due = max(due, Instant(began + max(asked.limit, 0)))
        return due

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


def waiters(session: Session, snapshot: Snapshot) -> int:
    """How many sessions wait for this one; 0 if that was not read."""
    return (snapshot.facts.waiters or {}).get(session.id.pid, 0)
