"""Encodes snapshots as the lines of one history file.

A file is gzipped lines of JSON; `zcat` shows it. The first line is the head, each other line a snapshot or a
partial snapshot. A snapshot holds what has changed since the one before, so the first one of a file holds all
sessions, and no file needs another. Sessions are numbered in the order in which they came. Times are
microseconds since 1970.
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


class HistoryEncoder:
    """Encodes one file."""

    def __init__(self, aliases: Aliases | None = None) -> None:
        self._aliases = aliases
        self._known: dict[SessionId, tuple[int, Session]] = {}
        self._count = 0
        self._last_about: Mapping[str, object] = {}

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
        came, moved, left = list[object](), list[object](), list[object]()
        before, self._known = self._known, {}
        for session in snapshot.sessions:
            number, was = before.pop(session.id, (None, session))
            if number is None or _fixed(was) != _fixed(session):
                left += [] if number is None else [number]
                came.append(self._row(session))
                number, self._count = self._count, self._count + 1
            elif was is not session and was != session:
                renamed = [] if was.identity == session.identity else self._names(session.identity)
                moved.append([number, *_state(session), *renamed])
            self._known[session.id] = number, session
        left += [number for number, _ in before.values()]
        marks = [[cycle.at, cycle.used] for cycle in cycles]
        rows = {"came": came, "moved": moved, "left": left, "cycles": marks}
        new = {key: value for key, value in rows.items() if value}
        return _line({"at": snapshot.at, **self._changed_about(snapshot), **new})

    def partial(self, at: Instant, sessions: Sequence[Session]) -> bytes:
        """Return the line of a partial snapshot; the next snapshot does not build on it."""
        return _line({"partial": at, "rows": [self._row(session) for session in sessions]})

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

    def _row(self, session: Session) -> list[object]:
        kind, superuser, role_oid, port = _fixed(session)
        # A port would identify an anonymous client.
        fixed = [_short(kind), superuser, role_oid, None if self._aliases else port]
        return [*session.id, *fixed, *_state(session), *self._names(session.identity)]

    def _names(self, identity: Identity) -> list[object]:
        return [_short(name) for name in (self._aliases.identity(identity) if self._aliases else identity)]


def _fixed(session: Session) -> tuple[str, bool, int | None, int | None]:
    """Return what never changes in a session."""
    return session.kind, session.superuser, session.role_oid, session.client_port


def _state(session: Session) -> list[object]:
    return [
        _short(session.state),
        session.state_change,
        session.query_start,
        session.xact_start,
        _short(session.wait_event),
        session.xid_age,
        session.last_query_listens,
        session.last_query_starts_backup,
    ]


def _short(name: str | None) -> str | None:
    return name and name[:MAX_TEXT]


def _facts(facts: Facts) -> Mapping[str, object]:
    holders, waiters = facts.advisory_lock_holders, facts.waiters
    return {
        "locks": None if holders is None else sorted(holders),
        "waiters": None if waiters is None else [list(pair) for pair in sorted(waiters.items())],
    }


def _line(fields: Mapping[str, object]) -> bytes:
    # ASCII, so that no name can break a line.
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
