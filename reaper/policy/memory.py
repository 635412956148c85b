"""What one cycle remembers for the next."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from reaper.policy.plan import Candidate, Outcome, Result, SafetyLimitTrip
from reaper.policy.refill_guard import Group, PausedGroup
from reaper.policy.rules import Action, Mode
from reaper.policy.session import CLIENT_BACKEND, Session, SessionId, Snapshot
from reaper.policy.time import Timestamp

MAX_TRIES: Final = 3
"""A session is skipped after this number of signals or refusals: further ones will not help."""

_NO_EFFECT: Final = {Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}


class Tried(NamedTuple):
    """A session in a state, and the action that was tried; another state or another action counts anew."""

    id: SessionId
    state_change: Timestamp | None
    action: Action

    @classmethod
    def of(cls, session: Session, action: Action) -> "Tried":
        """This session as it is now."""
        return cls(session.id, session.state_change, action)


class DryRunBefore(NamedTuple):
    """A session as it was when a policy of this mode would have terminated or cancelled it."""

    mode: Mode
    id: SessionId
    state_change: Timestamp | None
    action: Action = Action.TERMINATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Sessions seen, dry-run and signalled in the cycles before."""

    seen: frozenset[SessionId] = frozenset()
    dry_run_before: frozenset[DryRunBefore] = frozenset()
    """These count as gone in a dry run, so that its limit per cycle moves on as enforcement does."""
    dry_run_ids: frozenset[SessionId] = field(init=False, repr=False, compare=False)
    """The ids of the same, because most sessions are not among them."""
    no_effect: Mapping[Tried, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many signals had no effect."""
    paused: Mapping[Group, PausedGroup] = field(default_factory=lambda: MappingProxyType({}))
    """Groups that the refill guard pauses."""
    tripped: frozenset[str] = frozenset()
    """Policies whose safety limit tripped in the last cycle: only the first trip in a row is logged."""

    def __post_init__(self) -> None:
        """Compute once what is read for every session."""
        object.__setattr__(self, "dry_run_ids", frozenset(was.id for was in self.dry_run_before))

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Memory":
        """A memory that has seen every session of this snapshot: for commands that read a single snapshot."""
        return cls(seen=frozenset(session.id for session in snapshot.sessions))

    def with_paused(self, groups: Mapping[Group, PausedGroup]) -> "Memory":
        """The same memory with these paused groups."""
        return self if groups is self.paused else replace(self, paused=groups)

    def forgetting_dry_runs(self) -> "Memory":
        """The memory after a reload: the new policies are dry-run from the beginning."""
        return replace(self, dry_run_before=frozenset())

    def was_dry_run(self, session: Session, mode: Mode) -> bool:
        """Whether a dry run has already taken this session, and it is unchanged since then."""
        return session.id in self.dry_run_ids and any(
            self._was_dry_run(session, mode, action) for action in Action
        )

    def without_dry_run(self, snapshot: Snapshot, mode: Mode) -> Snapshot:
        """The snapshot as enforcement would find it: without the sessions of earlier dry runs."""
        if not self.dry_run_before:
            return snapshot
        gone = {
            session.id: session.kind
            for session in snapshot.sessions
            if session.id in self.dry_run_ids and self._was_dry_run(session, mode, Action.TERMINATE)
        }
        freed = sum(kind == CLIENT_BACKEND for kind in gone.values())
        return replace(
            snapshot,
            sessions=tuple(session for session in snapshot.sessions if session.id not in gone),
            slots=replace(snapshot.slots, used=max(snapshot.slots.used - freed, 0)),
        )

    def _was_dry_run(self, session: Session, mode: Mode, action: Action) -> bool:
        # A session that an enforcing policy dry-ran under --dry-run is gone for every dry-run policy as well.
        modes = (mode,) if mode is Mode.ENFORCE else (Mode.ENFORCE, mode)
        return any(
            DryRunBefore(each, session.id, session.state_change, action) in self.dry_run_before
            for each in modes
        )

    def after(
        self,
        snapshot: Snapshot,
        settled: Iterable[tuple[Candidate, Outcome]] = (),
        trips: Iterable[SafetyLimitTrip] = (),
    ) -> "Memory":
        """Remember the sessions and outcomes of this cycle; forget sessions that have exited."""
        seen = frozenset(session.id for session in snapshot.sessions)
        dry_run_before = {was for was in self.dry_run_before if was.id in seen}
        no_effect = {tried: count for tried, count in self.no_effect.items() if tried.id in seen}
        for candidate, outcome in settled:
            session = candidate.session
            if outcome.result is Result.DRY_RUN:
                was = DryRunBefore(candidate.mode, session.id, session.state_change, candidate.action)
                dry_run_before.add(was)
            elif outcome.result in _NO_EFFECT:
                tried = Tried.of(session, candidate.action)
                no_effect[tried] = no_effect.get(tried, 0) + 1
        return Memory(
            seen=seen,
            dry_run_before=frozenset(dry_run_before),
            no_effect=MappingProxyType(no_effect),
            paused=self.paused,
            tripped=frozenset(trip.policy.name for trip in trips),
        )
