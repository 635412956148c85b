"""The criteria of a policy: all must hold, and an unknown value never holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from reaper.policy.selector import NO_KEYS, Selector
from reaper.policy.session import ACTIVE, Session, Snapshot
from reaper.policy.text import counted
from reaper.policy.time import Duration, Timestamp, exact_words, since, words


class Age(NamedTuple):
    """An age of a session, and the limit that a policy sets for it."""

    key: str
    word: str
    began: Timestamp | None
    limit: Duration

    def reached(self, now: Timestamp) -> bool:
        """Whether the age has reached its limit; an unknown or negative age never has."""
        age = since(self.began, now)
        return age is not None and age >= max(self.limit, 0)

    def words(self, now: Timestamp) -> str:
        """The age beside its limit: `idle 12m31s, limit 10m`."""
        age = since(self.began, now)
        said = f"not {self.word}" if age is None else f"{self.word} {words(age)}"
        return f"{said}, limit {exact_words(self.limit)}"


class _AgeLimit(NamedTuple):
    """A kind of age, how it is read from a session, and its limit."""

    key: str
    word: str
    began: Callable[[Session], Timestamp | None]
    limit: Duration

    def since(self, session: Session) -> Timestamp | None:
        """The moment from which this age of a session can be believed."""
        began, counted_from = self.began(session), session.counted_from
        return began if began is None or counted_from is None else max(began, counted_from)


_AGES: Final[tuple[tuple[str, str, Callable[[Session], Timestamp | None]], ...]] = (
    # An active session is not idle; and once a query is over, its start is no longer the age of anything.
    ("idle_for", "idle", lambda session: None if session.state == ACTIVE else session.state_change),
    ("transaction_for", "in transaction", lambda session: session.xact_start),
    ("connected_for", "connected", lambda session: session.id.backend_start),
    ("running_for", "running", lambda session: session.query_start if session.state == ACTIVE else None),
)


class CriterionResult(NamedTuple):
    """Whether one criterion holds for one session, in words."""

    criterion: str
    holds: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The sessions that a policy matches: selector, states and ages."""

    states: tuple[str, ...]
    selector: Selector = NO_KEYS
    idle_for: Duration | None = None
    transaction_for: Duration | None = None
    connected_for: Duration | None = None
    running_for: Duration | None = None
    xmin_age: int | None = None
    blocking: bool = False
    _limits: "tuple[_AgeLimit, ...]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect once the ages that have a limit."""
        limits = (self.idle_for, self.transaction_for, self.connected_for, self.running_for)
        asked = (
            _AgeLimit(*age, limit) for age, limit in zip(_AGES, limits, strict=True) if limit is not None
        )
        object.__setattr__(self, "_limits", tuple(asked))

    def holds(self, session: Session, snapshot: Snapshot) -> bool:
        """Whether every criterion but the selector holds; `Rules.matching` compares the selector."""
        if self.blocking and not waiters(session, snapshot):
            return False
        return self.holds_but_for_facts(session, snapshot.at)

    def holds_but_for_facts(self, session: Session, now: Timestamp) -> bool:
        """Whether state, ages and `xmin_age` hold: what is known before facts are read."""
        if not self._limits or not self._in_state(session, now):
            return False  # without any age a policy matches no session, not all
        for limit in self._limits:  # the hottest loop of a cycle
            began = limit.since(session)
            if began is None or now - began < max(limit.limit, 0):
                return False
        return self.xmin_age is None or self._holds_back(session)

    @property
    def in_state_for(self) -> Duration:
        """Sessions that have been in their state for a shorter time are not matched."""
        return Duration(max(self.idle_for or 0, 0))

    def ages(self, session: Session) -> Iterator[Age]:
        """Each age that has a limit."""
        for limit in self._limits:
            yield Age(limit.key, limit.word, limit.since(session), limit.limit)

    def decisive(self, session: Session) -> Age | None:
        """The age that reached its limit last; None if an age is not known."""
        ages = tuple(self.ages(session))
        if not ages or any(age.began is None for age in ages):
            return None
        return max(ages, key=lambda age: (age.began or 0) + age.limit)

    def results(self, session: Session, snapshot: Snapshot) -> Iterator[CriterionResult]:
        """Whether each criterion holds for this session, for a person."""
        yield CriterionResult(
            "state",
            self._in_state(session, snapshot.at),
            f"{session.state!r}, wanted {', '.join(self.states)}",
        )
        for key, patterns, value in self.selector.given(session.identity):
            fits = any(pattern.matches(value) for pattern in patterns)
            yield CriterionResult(key, fits, f"{value!r}, wanted {', '.join(map(str, patterns))}")
        yield from self._results(session, snapshot)

    def reason(self, session: Session, snapshot: Snapshot) -> str:
        """Why a session is matched: its ages beside their limits, and the sessions that it blocks."""
        return "; ".join(result.words for result in self._results(session, snapshot))

    def due(self, session: Session) -> Timestamp | None:
        """When the last age is reached if the session stays as it is; None when it never will be."""
        if not self._limits or session.state not in self.states or session.state_change is None:
            return None
        due = session.state_change
        for limit in self._limits:
            began = limit.since(session)
            if began is None:
                return None
            due = max(due, Timestamp(began + max(limit.limit, 0)))
        return due

    def _results(self, session: Session, snapshot: Snapshot) -> Iterator[CriterionResult]:
        ages = tuple(self.ages(session))
        if not ages:
            yield CriterionResult("age", False, "no age limit, and so no match")  # noqa: FBT003  a field of a row
        for age in ages:
            yield CriterionResult(age.key, age.reached(snapshot.at), age.words(snapshot.at))
        if self.xmin_age is not None:
            by = "unknown" if session.xid_age is None else session.xid_age
            said = f"xmin age {by} transactions, limit {self.xmin_age}"
            yield CriterionResult("xmin_age", self._holds_back(session), said)
        if self.blocking:
            count = waiters(session, snapshot)
            said = f"blocks {counted(count, 'session')}"
            if snapshot.facts.waiters is None:
                said = "it is not known which sessions it blocks"
            yield CriterionResult("blocking", count > 0, said)

    def _in_state(self, session: Session, now: Timestamp) -> bool:
        # A state that begins after this snapshot comes from a clock that was set back: its age is not known.
        return (
            session.state in self.states and session.state_change is not None and session.state_change <= now
        )

    def _holds_back(self, session: Session) -> bool:
        limit = self.xmin_age
        return limit is not None and session.xid_age is not None and session.xid_age >= limit


def waiters(session: Session, snapshot: Snapshot) -> int:
    """How many sessions wait for this one; 0 if that was not read."""
    return (snapshot.facts.waiters or {}).get(session.id.pid, 0)
