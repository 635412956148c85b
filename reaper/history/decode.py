"""Decodes the lines of one history file, whatever they hold: a snapshot, or BadHistory with the line.

A day of a busy server has millions of rows. Row fields are therefore not checked one by one: a wrong type
shows as the exception that it causes.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, NoReturn

from reaper.history.encode import FORMAT, MAX_NAMES, MAX_TEXT
from reaper.insight.recorded import CycleMark, PartialSnapshot, RecordedSnapshot, SessionChange
from reaper.policy.session import Facts, Identity, Session, SessionId, Slots, Watcher
from reaper.policy.time import SECOND, Instant

_MAX_SESSIONS: Final = 262_143
"""PostgreSQL allows no more backends."""
_MAX_KNOWN: Final = MAX_NAMES + 4 * _MAX_SESSIONS
"""Names, and identities, of one file: the last line may add four names for each session."""
_MAX_CHARACTERS: Final = 32 * 1024 * 1024
_MAX_EVERY: Final = 3_600 * SECOND
_MAX_NUMBER: Final = 2**66
"""Beyond every time and age of a server."""
_WRONG: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
_ABOUT: Final = ("slots", "used", "unreadable", "watcher", "locks", "waiters")


class BadHistory(Exception):
    """A file is not a history, or not a believable one; says where and why."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}; give a file that `reaper history` wrote")


class FileHead(NamedTuple):
    """What the first line says about the whole file."""

    server: str
    at: Instant
    every: int
    anonymous: bool
    counted_from: Instant | None


class HistoryDecoder:
    """Decodes one file, line by line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._line = 0
        self.head: FileHead | None = None
        self._names: list[str | None] = [None]
        self._characters = 0
        self._identities: list[Identity] = []
        self._numbered: dict[int, Session] = {}
        self._count = 0
        self._sessions: dict[SessionId, Session] = {}
        self._about: dict[str, Any] = {}
        self._facts = Facts()
        self._partial: list[PartialSnapshot] = []
        self._partial_rows = 0

    def decode(self, line: bytes | bytearray) -> RecordedSnapshot | None:
        """Return the snapshot of a line; None for the head and for a partial snapshot. Raises BadHistory."""
        self._line += 1
        try:
            fields = json.loads(line.decode("ascii"), parse_float=_refuse_float, parse_constant=_refuse_float)
            if self.head is None:
                self.head = self._decode_head(fields)
                return None
            self._learn_names(fields)
            if "partial" in fields:
                self._add_partial(fields, self.head)
                return None
            return self._snapshot(fields, self.head)
        except json.JSONDecodeError as error:
            self._refuse(f"not JSON: {error.msg} at column {error.colno}")
        except _WRONG as error:
            self._refuse(f"not a line of a history: {type(error).__name__}: {error!s:.80}")

    def _refuse(self, problem: str) -> NoReturn:
        raise BadHistory(self._file, self._line, problem) from None

    def _decode_head(self, fields: Mapping[str, Any]) -> FileHead:
        if fields.get("history") != FORMAT:
            self._refuse("not a history that this version reads")
        counted_from = fields.get("counted_from")
        return FileHead(
            server=_text(fields["server"]),
            at=Instant(_whole(fields["at"])),
            every=min(max(_whole(fields["every"]), 0), _MAX_EVERY),
            anonymous=fields.get("anonymous") is True,
            counted_from=None if counted_from is None else Instant(_whole(counted_from)),
        )

    def _learn_names(self, fields: Mapping[str, Any]) -> None:
        names = [_text(name) for name in fields.get("names", ())]
        self._names += names
        self._characters += sum(map(len, names))
        for database, role, application, client in fields.get("identities", ()):
            numbers = (database, role, application, client)
            self._identities.append(Identity(*[self._names[number] for number in numbers]))
        too_many = max(len(self._names), len(self._identities)) > _MAX_KNOWN
        if too_many or self._characters > _MAX_CHARACTERS:
            self._refuse("more names than any server has")

    def _add_partial(self, fields: Mapping[str, Any], head: FileHead) -> None:
        at = Instant(_whole(fields["partial"]))
        sessions = [self._new_session(row, at, head) for row in fields["rows"]]
        self._partial_rows += len(sessions) + 1
        if self._partial_rows > _MAX_SESSIONS:
            self._refuse("more partial snapshots than a cycle can take")
        self._partial.append(PartialSnapshot(at, sessions))

    def _snapshot(self, fields: Mapping[str, Any], head: FileHead) -> RecordedSnapshot:
        at = Instant(_whole(fields["at"]))
        left = [self._remove(number) for number in fields.get("left", ())]
        changed = [self._add(row, at, head) for row in fields.get("came", ())]
        changed += [self._change(row, at) for row in fields.get("moved", ())]
        if len(self._sessions) > _MAX_SESSIONS:
            self._refuse("more sessions than any server has")
        about = self._about
        about.update((key, fields[key]) for key in _ABOUT if key in fields)
        if "locks" in fields or "waiters" in fields:
            self._facts = _facts(about["locks"], about["waiters"])
        (total, reserved), (pid, role, superuser) = about["slots"], about["watcher"]
        partial, self._partial, self._partial_rows = self._partial, [], 0
        return RecordedSnapshot(
            server=head.server,
            at=at,
            slots=Slots(total=_count(total), reserved=_count(reserved), used=_count(about["used"])),
            watcher=Watcher(pid=_count(pid), role=_text(role), superuser=superuser is True),
            unreadable=_count(about["unreadable"]),
            facts=self._facts,
            sessions=self._sessions,
            changed=changed,
            left=[session for session in left if session.id not in self._sessions],
            every=head.every,
            counted_from=head.counted_from,
            partial=partial,
            cycles=self._cycles(fields.get("cycles", ()), at),
        )

    def _cycles(self, pairs: Sequence[Any], at: Instant) -> list[CycleMark]:
        cycles = [CycleMark(Instant(at - _whole(ago)), _count(used)) for ago, used in pairs]
        if any(one.at > other.at for one, other in pairwise(cycles)):
            self._refuse("the cycles are not in their order")
        return cycles

    def _remove(self, number: int) -> Session:
        session = self._numbered.pop(number)
        del self._sessions[session.id]
        return session

    def _add(self, row: Sequence[Any], at: Instant, head: FileHead) -> SessionChange:
        session = self._new_session(row, at, head)
        if session.id in self._sessions:
            self._refuse(f"pid {session.id.pid} with this backend_start comes twice")
        self._sessions[session.id] = self._numbered[self._count] = session
        self._count += 1
        return SessionChange(None, session)

    def _new_session(self, row: Sequence[Any], at: Instant, head: FileHead) -> Session:
        pid, age, kind, superuser, role_oid, port, *state = row
        fixed = Session(
            id=SessionId(_count(pid), Instant(at - _whole(age))),
            identity=_NO_IDENTITY,
            kind=_text(self._names[kind]),
            role_oid=None if role_oid is None else _whole(role_oid),
            superuser=superuser is True,
            client_port=None if port is None else _whole(port),
            counted_from=head.counted_from,
        )
        return self._in_state(fixed, state, at)

    def _change(self, row: Sequence[Any], at: Instant) -> SessionChange:
        number, *state = row
        was = self._numbered[number]
        now = self._sessions[was.id] = self._numbered[number] = self._in_state(was, state, at)
        return SessionChange(was, now)

    def _in_state(self, fixed: Session, state: Sequence[Any], at: Instant) -> Session:
        # Nearly all rows of a file come through here: `replace` would take twice as long.
        identity, name, state_age, query_age, xact_age, wait, xid_age, listens, starts_backup = state
        return Session(
            id=fixed.id,
            identity=self._identities[identity],
            kind=fixed.kind,
            role_oid=fixed.role_oid,
            superuser=fixed.superuser,
            client_port=fixed.client_port,
            state=self._names[name],
            state_change=_before(at, state_age),
            query_start=_before(at, query_age),
            xact_start=_before(at, xact_age),
            wait_event=self._names[wait],
            xid_age=None if xid_age is None else _whole(xid_age),
            last_query_listens=listens is True,
            last_query_starts_backup=starts_backup is True,
            counted_from=fixed.counted_from,
        )


_NO_IDENTITY: Final = Identity(None, None, None, None)


def _refuse_float(text: str) -> NoReturn:
    message = f"{text:.20} is not a whole number"
    raise ValueError(message)


def _before(at: Instant, age: object) -> Instant | None:
    return None if age is None else Instant(at - _whole(age))


def _whole(value: object) -> int:
    if type(value) is not int or not -_MAX_NUMBER < value < _MAX_NUMBER:
        message = f"{value!r:.40} is not a possible number"
        raise ValueError(message)
    return value


def _count(value: object) -> int:
    number = _whole(value)
    if not 0 <= number < 2**31:
        message = f"{number} is not a count"
        raise ValueError(message)
    return number


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        message = f"{value!r:.40} is not a name"
        raise ValueError(message)
    return value


def _facts(locks: Sequence[Any] | None, waiters: Sequence[Any] | None) -> Facts:
    return Facts(
        advisory_lock_holders=None if locks is None else frozenset(map(_count, locks)),
        waiters=None if waiters is None else {_count(pid): _count(count) for pid, count in waiters},
    )
