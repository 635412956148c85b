"""Encodes snapshots as the lines of one history file.

A file is gzipped lines of JSON; `zcat` shows it. The first line is the head, each other line a snapshot or a
partial snapshot. A snapshot holds what has changed since the one before, so the first one of a file holds all
sessions and no file needs another. Names and identities are numbered where they first appear. Times are
microseconds; those of a session are given as the age at the snapshot.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from reaper.history.aliases import Aliases
from reaper.insight.recorded import CycleMark
from reaper.policy.session import Facts, Identity, Session, SessionId, Snapshot
from reaper.policy.time import Instant, Span

FORMAT: Final = 2
MAX_TEXT: Final = 1_000
"""Characters of one name; names of a server have at most 63 bytes."""
MAX_NAMES: Final = 32_768
"""A file with more names is followed by the next one: a client may use a new name for each connection."""
_MAX_STALE_NAMES: Final = 8_192
"""The same for names beside four of each session that is there, because all names stay in memory."""


class HistoryEncoder:
    """Encodes one file."""

    def __init__(self, aliases: Aliases | None = None) -> None:
        self._aliases = aliases
        self._names: dict[str, int] = {}
        self._identities: dict[Identity, int] = {}
        self._known: dict[SessionId, tuple[int, Session]] = {}
        self._count = 0
        self._last_about: Mapping[str, object] = {}
        self._new_names: list[str] = []
        self._new_identities: list[list[int]] = []

    @property
    def is_full(self) -> bool:
        """Return True if the file knows so many names that another one should follow."""
        limit = min(MAX_NAMES, _MAX_STALE_NAMES + len(Identity._fields) * len(self._known))
        return len(self._names) > limit or len(self._identities) > limit

    def head(
        self, server: str, at: Instant, *, every: Span, version: str, counted_from: Instant | None
    ) -> bytes:
        """Return the first line."""
        return _line(
            {
                "history": FORMAT,
                "reaper": version,
                "server": server[:MAX_TEXT],
                "at": at,
                "every": every,
                "anonymous": self._aliases is not None,
                "counted_from": counted_from,
            }
        )

    def snapshot(self, snapshot: Snapshot, cycles: Iterable[CycleMark] = ()) -> bytes:
        """Return the line of a snapshot, with the cycles since the one before."""
        at = snapshot.at
        came, moved, left = list[object](), list[object](), list[object]()
        before, self._known = self._known, {}
        for session in snapshot.sessions:
            number, was = before.pop(session.id, (None, session))
            if number is None or _fixed(was) != _fixed(session):
                left += [] if number is None else [number]
                came.append(self._row(session, at))
                number, self._count = self._count, self._count + 1
            elif was is not session and was != session:
                moved.append([number, *self._state(session, at)])
            self._known[session.id] = number, session
        left += [number for number, _ in before.values()]
        marks = [[at - cycle.at, cycle.used] for cycle in cycles]
        rows: Mapping[str, Sequence[object]] = {"came": came, "moved": moved, "left": left, "cycles": marks}
        return self._with_new_names({"at": at, **self._changed_about(snapshot)}, rows)

    def partial(self, at: Instant, sessions: Sequence[Session]) -> bytes:
        """Return the line of a partial snapshot; the next snapshot does not build on it."""
        return self._with_new_names(
            {"partial": at}, {"rows": [self._row(session, at) for session in sessions]}
        )

    def _with_new_names(self, fields: Mapping[str, object], rows: Mapping[str, Sequence[object]]) -> bytes:
        new: Mapping[str, Sequence[object]] = {"names": self._new_names, "identities": self._new_identities}
        line = _line({**fields, **{key: value for key, value in {**new, **rows}.items() if value}})
        self._new_names, self._new_identities = [], []
        return line

    def _changed_about(self, snapshot: Snapshot) -> Mapping[str, object]:
        slots, watcher = snapshot.slots, snapshot.watcher
        role = watcher.role if self._aliases is None else self._aliases.name(watcher.role)
        about: Mapping[str, object] = {
            "slots": [slots.total, slots.reserved],
            "used": slots.used,
            "unreadable": snapshot.unreadable,
            "watcher": [watcher.pid, role[:MAX_TEXT], watcher.superuser],
            **_facts(snapshot.facts),
        }
        last, self._last_about = self._last_about, about
        return {key: value for key, value in about.items() if key not in last or last[key] != value}

    def _row(self, session: Session, at: Instant) -> list[object]:
        age = at - session.id.backend_start
        kind, superuser, role_oid, port = _fixed(session)
        port = None if self._aliases else port
        return [session.id.pid, age, self._name(kind), superuser, role_oid, port, *self._state(session, at)]

    def _state(self, session: Session, at: Instant) -> list[object]:
        moments = (session.state_change, session.query_start, session.xact_start)
        return [
            self._identity(session.identity),
            self._name(session.state),
            *(None if moment is None else at - moment for moment in moments),
            self._name(session.wait_event),
            session.xid_age,
            session.last_query_listens,
            session.last_query_starts_backup,
        ]

    def _identity(self, identity: Identity) -> int:
        number = self._identities.get(identity)
        if number is None:
            number = self._identities[identity] = len(self._identities)
            shown = identity if self._aliases is None else self._aliases.identity(identity)
            self._new_identities.append([self._name(name) for name in shown])
        return number

    def _name(self, name: str | None) -> int:
        """Return the number of a name; 0 stands for None."""
        if name is None:
            return 0
        name = name[:MAX_TEXT]
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._names) + 1
            self._new_names.append(name)
        return number


def _fixed(session: Session) -> tuple[str, bool, int | None, int | None]:
    """Return what never changes in a session."""
    return session.kind, session.superuser, session.role_oid, session.client_port


def _facts(facts: Facts) -> Mapping[str, object]:
    holders, waiters = facts.advisory_lock_holders, facts.waiters
    return {
        "locks": None if holders is None else sorted(holders),
        "waiters": None if waiters is None else [list(pair) for pair in sorted(waiters.items())],
    }


def _line(fields: Mapping[str, object]) -> bytes:
    # ASCII, so that no name can break a line.
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
