"""Encodes snapshots as the lines of one history file.

A file is gzipped lines of JSON; `zcat` shows it. The first line is the head, each other line a snapshot or a
partial snapshot. A snapshot holds the sessions that have changed since the one before, so the first one of a
file holds all sessions, and no file needs another. Sessions are numbered in the order in which they appear.
Times are microseconds since 1970.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

from reaper.history.aliases import Aliases
from reaper.insight.recorded import CycleMark
from reaper.policy.session import Session, SessionId, Snapshot
from reaper.policy.time import Duration, Timestamp

FORMAT: Final = 3
_times: Final = attrgetter("state_change", "query_start", "xact_start")
_flags: Final = attrgetter("wait_event", "xid_age", "last_query_listens", "last_query_starts_backup")
_constant: Final = attrgetter("kind", "superuser", "role_oid", "client_port", "identity")


class HistoryEncoder:
    """Encodes one file."""

    def __init__(self, aliases: Aliases | None = None) -> None:
        self._aliases = aliases
        self._known: dict[SessionId, tuple[int, Session]] = {}
        self._count = 0

    def head(
        self, server: str, at: Timestamp, *, every: Duration, version: str, counted_from: Timestamp | None
    ) -> bytes:
        """Return the first line."""
        head = {"history": FORMAT, "reaper": version, "server": server, "at": at, "every": every}
        return _line({**head, "anonymous": self._aliases is not None, "counted_from": counted_from})

    def snapshot(self, snapshot: Snapshot, cycles: Iterable[CycleMark] = ()) -> bytes:
        """Return the line of a snapshot, with the cycles since the one before."""
        came, moved, left = list[object](), list[object](), list[int]()
        before, self._known = self._known, {}
        for session in snapshot.sessions:
            number, was = before.pop(session.id, (None, session))
            if number is None or _constant(was) != _constant(session):
                left += [] if number is None else [number]
                came.append(self._row(session))
                number, self._count = self._count, self._count + 1
            elif was is not session and was != session:
                moved.append([number, _state(session)])
            self._known[session.id] = number, session
        left += [number for number, _ in before.values()]
        rows = {"came": came, "moved": moved, "left": left, "cycles": list(cycles)}
        return _line({**self._about(snapshot), **{key: value for key, value in rows.items() if value}})

    def partial(self, at: Timestamp, sessions: Sequence[Session]) -> bytes:
        """Return the line of a partial snapshot; the next snapshot does not build on it."""
        return _line({"partial": at, "rows": [self._row(session) for session in sessions]})

    def _about(self, snapshot: Snapshot) -> Mapping[str, object]:
        slots, watcher, facts = snapshot.slots, snapshot.watcher, snapshot.facts
        role = watcher.role if self._aliases is None else self._aliases.name(watcher.role)
        holders, waiters = facts.advisory_lock_holders, facts.waiters
        return {
            "at": snapshot.at,
            "slots": [slots.total, slots.reserved, slots.used],
            "watcher": [watcher.pid, role, watcher.superuser],
            "unreadable": snapshot.unreadable,
            "locks": None if holders is None else sorted(holders),
            "waiters": None if waiters is None else sorted(waiters.items()),
        }

    def _row(self, session: Session) -> list[object]:
        kind, superuser, role_oid, port, identity = _constant(session)
        if self._aliases:
            # A port would identify an anonymous client.
            port, identity = None, self._aliases.identity(identity)
        return [*session.id, kind, superuser, role_oid, port, identity, _state(session)]


def _state(session: Session) -> list[object]:
    return [session.state, _times(session), *_flags(session)]


def _line(fields: Mapping[str, object]) -> bytes:
    # ASCII, so that no name can break a line.
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
