"""What one cycle leaves to the next."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from reaper.policy.plan import BrakeTrip, Outcome, Reap, Result
from reaper.policy.refill_guard import BackOff, Group
from reaper.policy.rules import Action, Mode
from reaper.policy.session import CLIENT_BACKEND, Session, SessionId, Snapshot
from reaper.policy.time import Instant

MOST_TRIES: Final = 3
"""A session that was signalled or refused so many times is left alone: more of it will not help."""

_IN_VAIN: Final = {Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}


class Tried(NamedTuple):
    """What was tried with a session in this state; another state, or another action, is another matter."""

    id: SessionId
    state_change: Instant | None
    action: Action

    @classmethod
    def of(cls, session: Session, action: Action) -> "Tried":
        """This session as it is now."""
        return cls(session.id, session.state_change, action)


class Rehearsed(NamedTuple):
    """A session as it was when a policy of this mode would have taken it."""

    mode: Mode
    id: SessionId
    state_change: Instant | None
    action: Action = Action.TERMINATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Sightings, rehearsals and signals of the cycles before."""

    seen: frozenset[SessionId] = frozenset()
    rehearsed: frozenset[Rehearsed] = frozenset()
    """Gone, as far as a dry run is concerned: so that its pace moves on as a real one does."""
    taken: frozenset[SessionId] = field(init=False, repr=False, compare=False)
    """The same by their ids alone, for most sessions are not among them."""
    in_vain: Mapping[Tried, int] = field(default_factory=lambda: MappingProxyType({}))

    left_alone: Mapping[Group, BackOff] = field(default_factory=lambda: MappingProxyType({}))
    """Groups that refill at once whatever is taken from them."""
    braked: frozenset[str] = frozenset()
    """Policies whose brake held in the last cycle: it is recorded when it trips, not while it holds."""

    def __post_init__(self) -> None:
        """Work out once what is asked of every session."""
        object.__setattr__(self, "taken", frozenset(was.id for was in self.rehearsed))

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Memory":
        """Take everybody in this snapshot for seen: what a look at a single snapshot does."""
        return cls(seen=frozenset(session.id for session in snapshot.sessions))

    def leaving_alone(self, groups: Mapping[Group, BackOff]) -> "Memory":
        """The same, and these groups refill at once."""
        return self if groups is self.left_alone else replace(self, left_alone=groups)

    def without_rehearsals(self) -> "Memory":
        """What is left when the rules have changed: the new ones are rehearsed from the beginning."""
        return replace(self, rehearsed=frozenset())

    def has_rehearsed(self, session: Session, mode: Mode) -> bool:
        """Whether a dry run has already taken this session, and nothing has changed since."""
        return session.id in self.taken and any(
            self._was_rehearsed(session, mode, action) for action in Action
        )

    def without_rehearsed(self, snapshot: Snapshot, mode: Mode) -> Snapshot:
        """The snapshot as enforcement would find it: without the sessions of earlier dry runs."""
        if not self.rehearsed:
            return snapshot
        gone = {
            session.id: session.kind
            for session in snapshot.sessions
            if session.id in self.taken and self._was_rehearsed(session, mode, Action.TERMINATE)
        }
        freed = sum(kind == CLIENT_BACKEND for kind in gone.values())
        return replace(
            snapshot,
            sessions=tuple(session for session in snapshot.sessions if session.id not in gone),
            slots=replace(snapshot.slots, used=max(snapshot.slots.used - freed, 0)),
        )

    def _was_rehearsed(self, session: Session, mode: Mode, action: Action) -> bool:
        # What an enforcing policy rehearsed under --dry-run is gone for every dry run beside it as well.
        lanes = (mode,) if mode is Mode.ENFORCE else (Mode.ENFORCE, mode)
        return any(
            Rehearsed(lane, session.id, session.state_change, action) in self.rehearsed for lane in lanes
        )

    def after(
        self,
        snapshot: Snapshot,
        settled: Iterable[tuple[Reap, Outcome]] = (),
        brakes: Iterable[BrakeTrip] = (),
    ) -> "Memory":
        """Remember sightings and outcomes of this cycle; forget sessions that have exited."""
        seen = frozenset(session.id for session in snapshot.sessions)
        rehearsed = {was for was in self.rehearsed if was.id in seen}
        in_vain = {tried: count for tried, count in self.in_vain.items() if tried.id in seen}
        for reap, outcome in settled:
            session = reap.session
            if outcome.result is Result.REHEARSED:
                rehearsed.add(Rehearsed(reap.mode, session.id, session.state_change, reap.action))
            elif outcome.result in _IN_VAIN:
                tried = Tried.of(session, reap.action)
                in_vain[tried] = in_vain.get(tried, 0) + 1
        return Memory(
            seen=seen,
            rehearsed=frozenset(rehearsed),
            in_vain=MappingProxyType(in_vain),
            left_alone=self.left_alone,
            braked=frozenset(trip.policy.name for trip in brakes),
        )
