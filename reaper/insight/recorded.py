"""A server's history as a stream: each snapshot with what has changed since the one before.

A row of a snapshot holds from the moment at which its session entered that state: PostgreSQL changes
`state_change` with every statement, so a session that shows the same one has not been used in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from reaper.policy.session import Session, SessionId, Snapshot
from reaper.policy.time import Timestamp


class SessionChange(NamedTuple):
    """A session that is new, or any field of which has changed."""

    was: Session | None
    now: Session


class PartialSnapshot(NamedTuple):
    """The sessions that a cycle matched, between two snapshots of all sessions."""

    at: Timestamp
    sessions: Sequence[Session]


class CycleMark(NamedTuple):
    """The moment of a cycle, and the number of slots in use then."""

    at: Timestamp
    used: int


@dataclass(slots=True, kw_only=True)
class RecordedSnapshot:
    """All sessions at one moment, and the difference from the snapshot before."""

    about: Snapshot
    """The snapshot, without its sessions."""
    sessions: Mapping[SessionId, Session]
    """All sessions; the next snapshot changes this very mapping, so copy what has to stay."""
    changed: Sequence[SessionChange]
    left: Sequence[Session]
    every: int = 0
    """The planned time between two snapshots, in microseconds."""
    counted_from: Timestamp | None = None
    """No age is counted from before this moment, because the server's clock was set then."""
    partial: Sequence[PartialSnapshot] = ()
    """Partial snapshots since the snapshot before."""
    cycles: Sequence[CycleMark] = ()
    """Cycles of the service since the snapshot before."""

    @property
    def at(self) -> Timestamp:
        """The moment of the snapshot."""
        return self.about.at

    def snapshot(self) -> Snapshot:
        """Return the same as a snapshot that policies can judge."""
        return replace(self.about, sessions=tuple(self.sessions.values()))


def state_since(session: Session) -> Timestamp:
    """Return the moment from which the session is known to be as this row shows it."""
    began = session.id.backend_start
    return began if session.state_change is None else max(began, session.state_change)


def unused_since(was: Session, now: Session) -> bool:
    """Return True if the session was not used between these two rows."""
    return (
        was.state_change == now.state_change
        and was.state == now.state
        and was.query_start == now.query_start
        and was.xact_start == now.xact_start
        and was.identity == now.identity
    )
