"""What a history tells of one look: light rows, of which most are never asked for more.

A reading shows everybody; a sighting, between two readings, shows a few. A row holds from the moment its
session entered that state until the look that showed it: whoever is as it was has been so all the time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reaper.policy.session import (
    CLIENT_BACKEND,
    Facts,
    Identity,
    Session,
    SessionId,
    Slots,
    Snapshot,
    Watcher,
)
from reaper.policy.time import Instant


class Seen(NamedTuple):
    """A session as one look showed it; the fields of `Session`, without what only a run can know."""

    id: SessionId
    identity: Identity
    kind: str = CLIENT_BACKEND
    role_oid: int | None = None
    superuser: bool = False
    client_port: int | None = None
    state: str | None = None
    state_change: Instant | None = None
    query_start: Instant | None = None
    xact_start: Instant | None = None
    wait_event: str | None = None
    xid_age: int | None = None
    last_query_listens: bool = False
    last_query_starts_backup: bool = False

    @property
    def counted_from(self) -> None:
        """What only a session can tell."""

    @classmethod
    def of(cls, session: Session) -> "Seen":
        """A session as it was; its query, were there any, is left behind."""
        return cls._make(getattr(session, name) for name in cls._fields)

    def session(self, counted_from: Instant | None = None) -> Session:
        """The session, to be judged."""
        return Session(**self._asdict(), counted_from=counted_from)

    @property
    def since(self) -> Instant:
        """Since when it has been like this, as far as can be told."""
        began = self.id.backend_start
        return began if self.state_change is None else max(began, self.state_change)


@dataclass(slots=True, kw_only=True)
class Reading:
    """Everybody at one moment, told as what is new since the reading before."""

    server: str
    at: Instant
    slots: Slots
    watcher: Watcher
    unreadable: int
    facts: Facts
    sessions: Mapping[SessionId, Seen]
    """Everybody by now; the reader goes on with the same mapping, so whoever wants to keep it copies it."""
    changed: Sequence["Change"]
    """Who is new, or no longer as it was."""
    left: Sequence[Seen]
    """Who is no longer there."""
    every: int = 0
    """How far apart readings were meant to be, in microseconds."""
    counted_from: Instant | None = None
    """No age is counted from before this moment: the server's clock was set."""
    sightings: Sequence["Sighting"] = ()
    """What else was seen since the reading before."""
    looks: Sequence["Mark"] = ()
    """When the reaper's own cycles have looked since then."""

    def snapshot(self) -> Snapshot:
        """The same as a snapshot."""
        return Snapshot(
            server=self.server,
            at=self.at,
            slots=self.slots,
            watcher=self.watcher,
            sessions=tuple(seen.session(self.counted_from) for seen in self.sessions.values()),
            unreadable=self.unreadable,
            facts=self.facts,
        )


class Change(NamedTuple):
    """A session that is new, or is no longer as it was."""

    was: Seen | None
    now: Seen


class Sighting(NamedTuple):
    """A few sessions at one moment between two readings."""

    at: Instant
    sessions: Sequence[Seen]
    waiters: Mapping[int, int]
    """How many waited for each of these then, where somebody did."""


class Mark(NamedTuple):
    """That a cycle looked, and how many slots it found used."""

    at: Instant
    used: int


def stands(was: Seen, now: Seen) -> bool:
    """Whether nobody has used it in between."""
    return was[_STATE:_WAIT] == now[_STATE:_WAIT] and was.identity == now.identity


_STATE, _WAIT = Seen._fields.index("state"), Seen._fields.index("wait_event")
