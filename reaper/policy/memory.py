"""What one cycle leaves to the next."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from reaper.policy.rules import Mode
from reaper.policy.session import Session, SessionId, Snapshot
from reaper.policy.spans import Instant
from reaper.policy.verdict import Outcome, Reap, Result

MOST_SIGNALS: Final = 3
"""A session that survives so many signals is left alone: more of the same will not help."""


class Rehearsed(NamedTuple):
    """A session as it was when a policy of this mode would have taken it."""

    mode: Mode
    id: SessionId
    state_change: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Sightings, rehearsals and signals of the cycles before."""

    seen: frozenset[SessionId] = frozenset()
    rehearsed: frozenset[Rehearsed] = frozenset()
    """Gone, as far as a dry run is concerned: so that its pace moves on as a real one does."""
    signalled: Mapping[SessionId, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Memory":
        """Take everybody in this snapshot for seen: what a look at a single snapshot does."""
        return cls(seen=frozenset(session.id for session in snapshot.sessions))

    def has_rehearsed(self, session: Session, mode: Mode) -> bool:
        """Whether a dry run has already taken this session, and nothing has changed since."""
        return Rehearsed(mode, session.id, session.state_change) in self.rehearsed

    def after(self, snapshot: Snapshot, settled: Iterable[tuple[Reap, Outcome]] = ()) -> "Memory":
        """Remember what was seen and done; forget whoever has left."""
        seen = frozenset(session.id for session in snapshot.sessions)
        rehearsed = {was for was in self.rehearsed if was.id in seen}
        signalled = {who: count for who, count in self.signalled.items() if who in seen}
        for reap, outcome in settled:
            session = reap.session
            if outcome.result is Result.REHEARSED:
                rehearsed.add(Rehearsed(reap.mode, session.id, session.state_change))
            elif outcome.result is Result.SIGNALLED:
                signalled[session.id] = signalled.get(session.id, 0) + 1
        return Memory(seen=seen, rehearsed=frozenset(rehearsed), signalled=MappingProxyType(signalled))
