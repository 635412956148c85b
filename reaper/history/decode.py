"""Decodes the lines of one history file, whatever they hold: a snapshot, or BadHistory with the line."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast

from reaper.history.encode import FORMAT, MAX_TEXT
from reaper.insight.recorded import CycleMark, PartialSnapshot, RecordedSnapshot, SessionChange
from reaper.policy.session import Facts, Identity, Session, SessionId, Slots, Watcher
from reaper.policy.time import SECOND, Instant

_MAX_SESSIONS: Final = 262_143
"""PostgreSQL allows no more backends."""
_MAX_EVERY: Final = 3_600 * SECOND
_MAX_NUMBER: Final = 2**66
"""Beyond every time and age of a server."""
_STATE_FIELDS: Final = 8
_WRONG: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_ABOUT: Final = ("slots", "used", "unreadable", "watcher", "locks", "waiters")


class BadHistory(Exception):
    """A file is not a history, or not a believable one; says where and why."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}; give a file that `reaper history` wrote")


class FileHead(NamedTuple):
    """What the first line says about the whole file."""

    server: str
    every: int
    anonymous: bool
    counted_from: Instant | None


class HistoryDecoder:
    """Decodes one file, line by line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._line = 0
        self.head: FileHead | None = None
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
        return FileHead(
            server=_known(_text(fields["server"])),
            every=min(max(_known(_number(fields["every"])), 0), _MAX_EVERY),
            anonymous=fields.get("anonymous") is True,
            counted_from=_number(fields.get("counted_from")),
        )

    def _add_partial(self, fields: Mapping[str, Any], head: FileHead) -> None:
        sessions = [_new_session(row, head) for row in fields["rows"]]
        self._partial_rows += len(sessions) + 1
        if self._partial_rows > _MAX_SESSIONS:
            self._refuse("more partial snapshots than cycles can take")
        self._partial.append(PartialSnapshot(_known(_number(fields["partial"])), sessions))

    def _snapshot(self, fields: Mapping[str, Any], head: FileHead) -> RecordedSnapshot:
        at = _known(_number(fields["at"]))
        left = [self._remove(number) for number in fields.get("left", ())]
        changed = [self._add(_new_session(row, head)) for row in fields.get("came", ())]
        changed += [self._change(row) for row in fields.get("moved", ())]
        if len(self._sessions) > _MAX_SESSIONS:
            self._refuse("more sessions than any server has")
        about = self._about
        about.update((key, fields[key]) for key in _ABOUT if key in fields)
        if "locks" in fields or "waiters" in fields:
            self._facts = _facts(about["locks"], about["waiters"])
        (total, reserved), (pid, role, superuser) = about["slots"], about["watcher"]
        cycles = [CycleMark(_known(_number(at)), _count(used)) for at, used in fields.get("cycles", ())]
        if any(one.at > other.at for one, other in pairwise(cycles)):
            self._refuse("the cycles are not in their order")
        partial, self._partial, self._partial_rows = self._partial, [], 0
        return RecordedSnapshot(
            server=head.server,
            at=at,
            slots=Slots(total=_count(total), reserved=_count(reserved), used=_count(about["used"])),
            watcher=Watcher(pid=_count(pid), role=_known(_text(role)), superuser=superuser is True),
            unreadable=_count(about["unreadable"]),
            facts=self._facts,
            sessions=self._sessions,
            changed=changed,
            left=[session for session in left if session.id not in self._sessions],
            every=head.every,
            counted_from=head.counted_from,
            partial=partial,
            cycles=cycles,
        )

    def _remove(self, number: int) -> Session:
        session = self._numbered.pop(number)
        del self._sessions[session.id]
        return session

    def _add(self, session: Session) -> SessionChange:
        if session.id in self._sessions:
            self._refuse(f"pid {session.id.pid} with this backend_start comes twice")
        self._sessions[session.id] = self._numbered[self._count] = session
        self._count += 1
        return SessionChange(None, session)

    def _change(self, row: Sequence[Any]) -> SessionChange:
        number, *state = row
        was = self._numbered[number]
        identity = _identity(state[_STATE_FIELDS:]) if len(state) > _STATE_FIELDS else was.identity
        fixed = was.kind, was.superuser, was.role_oid, was.client_port, was.counted_from
        now = _session(was.id, fixed, identity, state[:_STATE_FIELDS])
        self._sessions[was.id] = self._numbered[number] = now
        return SessionChange(was, now)


def _new_session(row: Sequence[Any], head: FileHead) -> Session:
    pid, began, kind, superuser, role_oid, port, *rest = row
    return _session(
        SessionId(_count(pid), _known(_number(began))),
        (_known(_text(kind)), superuser is True, _number(role_oid), _number(port), head.counted_from),
        _identity(rest[_STATE_FIELDS:]),
        rest[:_STATE_FIELDS],
    )


def _identity(names: Sequence[Any]) -> Identity:
    database, role, application, client = map(_text, names)
    return Identity(database, role, application, client)


_Fixed = tuple[str, bool, int | None, int | None, Instant | None]


def _session(who: SessionId, fixed: _Fixed, identity: Identity, state: Sequence[Any]) -> Session:
    # A day of a busy server has millions of these rows: `replace` would take twice as long.
    kind, superuser, role_oid, port, counted_from = fixed
    name, state_change, query_start, xact_start, wait_event, xid_age, listens, starts_backup = state
    return Session(
        id=who,
        identity=identity,
        kind=kind,
        role_oid=role_oid,
        superuser=superuser,
        client_port=port,
        state=_text(name),
        state_change=_number(state_change),
        query_start=_number(query_start),
        xact_start=_number(xact_start),
        wait_event=_text(wait_event),
        xid_age=_number(xid_age),
        last_query_listens=listens is True,
        last_query_starts_backup=starts_backup is True,
        counted_from=counted_from,
    )


_T = TypeVar("_T")


def _known(value: _T | None) -> _T:
    if value is None:
        message = "null stands where a value must"
        raise ValueError(message)
    return value


def _refuse_float(text: str) -> NoReturn:
    message = f"{text:.20} is not a whole number"
    raise ValueError(message)


def _number(value: object) -> Instant | None:
    if value is not None and (type(value) is not int or not -_MAX_NUMBER < value < _MAX_NUMBER):
        message = f"{value!r:.40} is not a possible number"
        raise ValueError(message)
    return cast("Instant | None", value)


def _count(value: object) -> int:
    number = _known(_number(value))
    if not 0 <= number < 2**31:
        message = f"{number} is not a count"
        raise ValueError(message)
    return number


def _text(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_TEXT):
        message = f"{value!r:.40} is not a name"
        raise ValueError(message)
    return value


def _facts(locks: Sequence[Any] | None, waiters: Sequence[Any] | None) -> Facts:
    return Facts(
        advisory_lock_holders=None if locks is None else frozenset(map(_count, locks)),
        waiters=None if waiters is None else {_count(pid): _count(count) for pid, count in waiters},
    )
