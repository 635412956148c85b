"""From snapshots to the lines of one history file: what is new since the line before, and nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from reaper.history.aliases import Aliases
from reaper.history.format import (
    FORMAT,
    LISTENS,
    LONGEST_TEXT,
    MANY_NAMES,
    MANY_OLD_NAMES,
    NO_PORT,
    NO_QUERY_START,
    NO_ROLE_OID,
    NO_STATE_CHANGE,
    NO_XACT_START,
    NO_XID_AGE,
    STARTS_BACKUP,
    SUPERUSER,
)
from reaper.policy.seen import Mark
from reaper.policy.session import Facts, Identity, Session, SessionId, Snapshot
from reaper.policy.time import Instant, Span

_NAMES_OF_ONE: Final = len(Identity._fields)


class Encoder:
    """Writes one file."""

    def __init__(self, *, server: str, every: Span, version: str, aliases: Aliases | None = None) -> None:
        self._server = _short(server)
        self._every = every
        self._version = version
        self._aliases = aliases
        self._names: dict[str, int] = {}
        self._who: dict[Identity, int] = {}
        self._known: dict[SessionId, tuple[int, Session]] = {}
        self._count = 0
        self._said: dict[str, object] = {}
        self._new_names: list[str] = []
        self._new_who: list[list[int]] = []

    @property
    def is_full(self) -> bool:
        """Whether it knows so many names that another file should follow."""
        most = min(MANY_NAMES, MANY_OLD_NAMES + _NAMES_OF_ONE * len(self._known))
        return len(self._names) > most or len(self._who) > most

    def head(self, at: Instant) -> bytes:
        """The first line."""
        server = self._server if self._aliases is None else self._aliases.server(self._server)
        return _line(
            {
                "history": FORMAT,
                "reaper": self._version,
                "server": server,
                "at": at,
                "every": self._every,
                "anonymous": self._aliases is not None,
            }
        )

    def reading(self, snapshot: Snapshot, looks: Iterable[Mark] = ()) -> bytes:
        """A line of everybody, and when cycles have looked since the line before."""
        at = snapshot.at
        present = {session.id: session for session in snapshot.sessions}
        left = [number for who, (number, was) in self._known.items() if not _goes_on(was, present.get(who))]
        self._known = {
            who: known for who, known in self._known.items() if _goes_on(known[1], present.get(who))
        }
        came: list[object] = []
        moved: list[object] = []
        xids: list[object] = []
        for session in snapshot.sessions:
            known = self._known.get(session.id)
            if known is None:
                came.append(self._came(session, at))
                continue
            number, before = known
            if before is session:
                continue
            if _but_for_xid(before, session):
                xids += [number, session.xid_age] if before.xid_age != session.xid_age else []
            else:
                moved.append([number, *self._tail(session, at), *self._renamed(before, session)])
            self._known[session.id] = number, session
        marks = _flat((at - mark.at, mark.used) for mark in looks)
        rows: dict[str, Sequence[object]] = {"came": came, "moved": moved, "xids": xids, "left": left}
        return self._look({"at": at}, {**rows, "looks": marks}, self._about(snapshot))

    def sighting(self, at: Instant, sessions: Sequence[Session], facts: Facts) -> bytes:
        """A line of a few sessions between two readings; the next reading does not build on it."""
        rows: list[object] = [self._row(session, at) for session in sessions]
        pids = {session.id.pid for session in sessions}
        waiters = [(pid, count) for pid, count in sorted((facts.waiters or {}).items()) if pid in pids]
        return self._look({"seen": at, "rows": rows}, {"waiters": _flat(waiters)}, {})

    def _look(
        self, when: Mapping[str, object], rows: Mapping[str, Sequence[object]], about: Mapping[str, object]
    ) -> bytes:
        new: Mapping[str, Sequence[object]] = {"names": self._new_names, "who": self._new_who}
        line = _line({**when, **about, **{key: value for key, value in {**new, **rows}.items() if value}})
        self._new_names, self._new_who = [], []
        return line

    def _about(self, snapshot: Snapshot) -> dict[str, object]:
        slots, watcher = snapshot.slots, snapshot.watcher
        told: dict[str, object] = {
            "slots": [slots.total, slots.reserved],
            "used": slots.used,
            "unreadable": snapshot.unreadable,
            "watcher": [watcher.pid, self._role(watcher.role), watcher.superuser],
            "counted_from": next((s.counted_from for s in snapshot.sessions), None),
            **_facts(snapshot.facts),
        }
        new = {key: value for key, value in told.items() if key not in self._said or self._said[key] != value}
        self._said = told
        return new

    def _role(self, role: str) -> str:
        return _short(role) if self._aliases is None else self._aliases.role(_short(role))

    def _came(self, session: Session, at: Instant) -> list[object]:
        self._known[session.id] = self._count, session
        self._count += 1
        return self._row(session, at)

    def _row(self, session: Session, at: Instant) -> list[object]:
        oid, port = session.role_oid, None if self._aliases else session.client_port
        return [
            session.id.pid,
            at - session.id.backend_start,
            self._who_number(session.identity),
            self._name(session.kind),
            oid or 0,
            port or 0,
            (NO_ROLE_OID if oid is None else 0)
            | (NO_PORT if port is None else 0)
            | (SUPERUSER if session.superuser else 0),
            *self._tail(session, at),
        ]

    def _tail(self, session: Session, at: Instant) -> list[int]:
        moments = (session.state_change, session.query_start, session.xact_start)
        flags = (
            (NO_STATE_CHANGE if session.state_change is None else 0)
            | (NO_QUERY_START if session.query_start is None else 0)
            | (NO_XACT_START if session.xact_start is None else 0)
            | (NO_XID_AGE if session.xid_age is None else 0)
            | (LISTENS if session.last_query_listens else 0)
            | (STARTS_BACKUP if session.last_query_starts_backup else 0)
        )
        ages = [0 if moment is None else at - moment for moment in moments]
        names = self._name(session.state), self._name(session.wait_event)
        return [names[0], *ages, names[1], session.xid_age or 0, flags]

    def _renamed(self, before: Session, session: Session) -> list[int]:
        return [] if before.identity == session.identity else [self._who_number(session.identity)]

    def _who_number(self, identity: Identity) -> int:
        number = self._who.get(identity)
        if number is None:
            number = self._who[identity] = len(self._who)
            named = identity if self._aliases is None else self._aliases.identity(identity)
            self._new_who.append([self._name(name) for name in named])
        return number

    def _name(self, name: str | None) -> int:
        """The number of a name; 0 is none."""
        if name is None:
            return 0
        name = _short(name)
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._names) + 1
            self._new_names.append(name)
        return number


def _goes_on(before: Session, now: Session | None) -> bool:
    """Whether it is still there, and nothing has changed that a short line cannot tell."""
    return now is not None and (
        before is now
        or (
            before.kind == now.kind
            and before.superuser == now.superuser
            and before.role_oid == now.role_oid
            and before.client_port == now.client_port
        )
    )


def _but_for_xid(before: Session, now: Session) -> bool:
    """Whether nothing that a line tells of a session has changed, its horizon aside."""
    return (
        before.state_change == now.state_change
        and before.state == now.state
        and before.query_start == now.query_start
        and before.xact_start == now.xact_start
        and before.wait_event == now.wait_event
        and before.identity == now.identity
        and before.last_query_listens == now.last_query_listens
        and before.last_query_starts_backup == now.last_query_starts_backup
        and (before.xid_age is None) == (now.xid_age is None)
    )


def _facts(facts: Facts) -> dict[str, object]:
    holders, waiters = facts.advisory_lock_holders, facts.waiters
    return {
        "locks": None if holders is None else sorted(holders),
        "waiters": None if waiters is None else _flat(sorted(waiters.items())),
    }


def _flat(pairs: Iterable[tuple[int, int]]) -> list[object]:
    return [each for pair in pairs for each in pair]


def _short(text: str) -> str:
    return text[:LONGEST_TEXT]


def _line(fields: Mapping[str, object]) -> bytes:
    # ASCII: no name can break a line, whatever a client put into it.
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
