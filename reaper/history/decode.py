"""Decodes the lines of one history file, whatever they hold: a snapshot, or BadHistory with the line."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal, NoReturn, TypeVar

from pydantic import BaseModel, Field, InstanceOf, StrictBool, ValidationError

from reaper.insight.recorded import CycleMark, PartialSnapshot, RecordedSnapshot, SessionChange
from reaper.policy.session import Facts, Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.time import SECOND, Timestamp

_MAX_SESSIONS: Final = 262_143
"""PostgreSQL allows no more backends."""

# Not pydantic's own str: it refuses lone surrogates, and a client may have put one into its name.
_Text = InstanceOf[str]
_Number = Annotated[Timestamp, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, Field(strict=True, ge=0, lt=2**31)]

_T = TypeVar("_T")
# Only the first bad row is reported: a message for each of millions would take all memory.
_List = Annotated[list[_T], Field(fail_fast=True)]
_Names = tuple[_Text | None, _Text | None, _Text | None, _Text | None]
_Times = tuple[_Number | None, _Number | None, _Number | None]
_State = tuple[_Text | None, _Times, _Text | None, _Number | None, StrictBool, StrictBool]
_Row = tuple[_Count, _Number, _Text, StrictBool, _Number | None, _Number | None, _Names, _State]


class BadHistory(Exception):
    """A file is not a history, or not a believable one; says where and why."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}; give a file that `reaper history` wrote")


class FileHead(BaseModel):
    """The first line: facts about the whole file."""

    history: Literal[3]
    server: _Text
    every: Annotated[int, Field(strict=True, ge=0, le=3_600 * SECOND)]
    anonymous: StrictBool
    counted_from: _Number | None = None


class _PartialLine(BaseModel):
    partial: _Number
    rows: _List[_Row]


class _SnapshotLine(BaseModel):
    at: _Number
    slots: tuple[_Count, _Count, _Count]
    watcher: tuple[_Count, _Text, StrictBool]
    unreadable: _Count
    locks: _List[_Count] | None
    waiters: _List[tuple[_Count, _Count]] | None
    came: _List[_Row] = []
    moved: _List[tuple[_Count, _State]] = []
    left: _List[_Count] = []
    cycles: _List[tuple[_Number, _Count]] = []


class HistoryDecoder:
    """Decodes one file, line by line."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._line = 0
        self.head: FileHead | None = None
        self._rows: dict[int, _Row] = {}
        """The latest row of each session, by its number."""
        self._count = 0
        self._sessions: dict[SessionId, Session] = {}
        self._partial: list[PartialSnapshot] = []
        self._partial_rows = 0

    def decode(self, line: bytes | bytearray) -> RecordedSnapshot | None:
        """Return the snapshot of a line; None for the head and for a partial snapshot. Raises BadHistory."""
        self._line += 1
        try:
            fields = json.loads(line)
            if self.head is None:
                self.head = FileHead.model_validate(fields)
            elif "partial" in fields:
                self._add_partial(_PartialLine.model_validate(fields), self.head)
            else:
                return self._snapshot(_SnapshotLine.model_validate(fields), self.head)
        except json.JSONDecodeError as error:
            self._refuse(f"not JSON: {error.msg} at column {error.colno}")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = "".join(f"{step}: " for step in first["loc"][:2])
            self._refuse(f"not a line of a history that this version reads: {place}{first['msg']}")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._refuse(f"not a line of a history: {type(error).__name__}: {error!s:.80}")
        return None

    def _refuse(self, problem: str) -> NoReturn:
        raise BadHistory(self._file, self._line, problem) from None

    def _add_partial(self, line: _PartialLine, head: FileHead) -> None:
        self._partial_rows += len(line.rows) + 1
        if self._partial_rows > _MAX_SESSIONS:
            self._refuse("more partial snapshots than cycles can take")
        sessions = [_session(row, head) for row in line.rows]
        self._partial.append(PartialSnapshot(line.partial, sessions))

    def _snapshot(self, line: _SnapshotLine, head: FileHead) -> RecordedSnapshot:
        left = {session.id: session for session in map(self._remove, line.left)}
        changed = [SessionChange(left.pop(now.id, None), now) for now in self._add(line.came, head)]
        changed += [self._change(number, state, head) for number, state in line.moved]
        if len(self._sessions) > _MAX_SESSIONS:
            self._refuse("more sessions than any server has")
        cycles = [CycleMark(*cycle) for cycle in line.cycles]
        if any(one.at > other.at for one, other in pairwise(cycles)):
            self._refuse("the cycles are not in their order")
        partial, self._partial, self._partial_rows = self._partial, [], 0
        (total, reserved, used), (pid, role, superuser) = line.slots, line.watcher
        about = Snapshot(
            server=head.server,
            at=line.at,
            slots=Slots(total=total, reserved=reserved, used=used),
            watcher=Watcher(pid=pid, role=role, superuser=superuser),
            sessions=(),
            unreadable=line.unreadable,
            facts=Facts(
                advisory_lock_holders=None if line.locks is None else frozenset(line.locks),
                waiters=None if line.waiters is None else dict(line.waiters),
            ),
        )
        return RecordedSnapshot(
            about=about,
            sessions=self._sessions,
            changed=changed,
            left=list(left.values()),
            every=head.every,
            counted_from=head.counted_from,
            partial=partial,
            cycles=cycles,
        )

    def _remove(self, number: int) -> Session:
        pid, began, *_ = self._rows.pop(number)
        return self._sessions.pop(SessionId(pid, began))

    def _add(self, rows: Sequence[_Row], head: FileHead) -> Sequence[Session]:
        added = [_session(row, head) for row in rows]
        for row, session in zip(rows, added, strict=True):
            if session.id in self._sessions:
                self._refuse(f"pid {session.id.pid} with this backend_start comes twice")
            self._sessions[session.id], self._rows[self._count] = session, row
            self._count += 1
        return added

    def _change(self, number: int, state: _State, head: FileHead) -> SessionChange:
        row = self._rows[number] = (*self._rows[number][:-1], state)
        now = _session(row, head)
        was, self._sessions[now.id] = self._sessions[now.id], now
        return SessionChange(was, now)


def _session(row: _Row, head: FileHead) -> Session:
    # A day of a busy server has millions of these rows: `replace` would take twice as long.
    pid, began, kind, superuser, role_oid, port, names, state = row
    name, (state_change, query_start, xact_start), wait_event, xid_age, listens, starts_backup = state
    return Session(
        id=SessionId(pid, began),
        identity=Identity(*names),
        kind=kind,
        role_oid=role_oid,
        superuser=superuser,
        client_port=port,
        state=name,
        state_change=state_change,
        query_start=query_start,
        xact_start=xact_start,
        wait_event=wait_event,
        xid_age=xid_age,
        last_query_listens=listens,
        last_query_starts_backup=starts_backup,
        counted_from=head.counted_from,
    )
