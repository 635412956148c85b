"""Saved snapshots: one JSON file that people can read and edit, validated as a whole when it is read back."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

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
from reaper.policy.time import Timestamp, from_datetime, isoformat, parse_time

_FORMAT: Final = 1
MAX_BYTES: Final = 32 * 1024 * 1024
"""Tens of thousands of sessions."""
_MAX_BACKENDS: Final = 262_143
"""PostgreSQL allows no more. Longer lists are not validated, because each mistake in them takes memory."""
_MAX_KEYS: Final = 100
"""Of an object: each unknown key takes memory too."""
_MAX_DIGITS: Final = 40
_MAX_PROBLEMS: Final = 20
_BAD: Final = "snapshot"
_NOT_A_TIME: Final = "not a time like 2026-01-31T23:59:59.000000Z"


class BadSnapshot(Exception):
    """A file is not a snapshot; each problem is a line that says where, what, and what to write instead."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """Return the snapshot as a file, in ASCII."""
    facts = snapshot.facts
    holders, waiters, blockers = facts.advisory_lock_holders, facts.waiters, facts.blockers
    head = {
        "snapshot": _FORMAT,
        "server": snapshot.server,
        "at": isoformat(snapshot.at),
        "slots": asdict(snapshot.slots),
        "watcher": asdict(snapshot.watcher),
        "unreadable": snapshot.unreadable,
        "facts": {
            "advisory_lock_holders": None if holders is None else sorted(holders),
            "waiters": None if waiters is None else {str(pid): count for pid, count in waiters.items()},
            "blockers": None if blockers is None else {str(pid): sorted(by) for pid, by in blockers.items()},
        },
    }
    # The head without its closing brace, so that each session stands on a line of its own.
    opening = json.dumps(head, indent=2).removesuffix("\n}")
    sessions = ",\n".join(f"    {json.dumps(_session(session))}" for session in snapshot.sessions)
    return f'{opening},\n  "sessions": [\n{sessions}\n  ]\n}}\n'.encode("ascii")


def _session(session: Session) -> Mapping[str, object]:
    times = ("state_change", "query_start", "xact_start")
    # What is counted from a jump of the clock is known only to the run that noticed it.
    left_out = {"id", "identity", "counted_from"}
    fields = {name: getattr(session, name) for name in session.__slots__ if name not in left_out}
    return {
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        **fields,
        **{name: isoformat(fields[name]) for name in times},
    }


def _instant(value: object) -> Timestamp:
    if time := parse_time(value):
        return from_datetime(time)
    if isinstance(value, str) and (beyond := re.fullmatch(r"(-?\d{1,20})us", value, re.ASCII)):
        return Timestamp(int(beyond[1]))  # as `isoformat` writes a time outside the calendar
    raise PydanticCustomError(_BAD, _NOT_A_TIME)


def _at_most(most: int) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, list | dict) and len(value) > most:
            raise PydanticCustomError(_BAD, "more than {most} entries", {"most": most})
        return value

    return BeforeValidator(check)


# Not pydantic's own str: it refuses lone surrogates, and a client may have put one into its name.
_Text = InstanceOf[str]
_Time = Annotated[Timestamp, PlainValidator(_instant)]
_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Pid = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
_T = TypeVar("_T")
_OfBackends = Annotated[_T, _at_most(_MAX_BACKENDS)]
_Object = Annotated[_T, _at_most(_MAX_KEYS)]


class _Saved(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _SavedSlots(_Saved):
    total: _Count
    reserved: _Count
    used: _Count
    superuser_reserved: _Count | None = None


class _SavedWatcher(_Saved):
    pid: _Count
    role: _Text
    superuser: bool


class _SavedFacts(_Saved):
    advisory_lock_holders: _OfBackends[list[_Count]] | None = None
    waiters: _OfBackends[dict[_Pid, _Count]] | None = None
    blockers: _OfBackends[dict[_Pid, _OfBackends[list[_Count]]]] | None = None

    def value(self) -> Facts:
        holders, waiters, blockers = self.advisory_lock_holders, self.waiters, self.blockers
        return Facts(
            advisory_lock_holders=None if holders is None else frozenset(holders),
            waiters=None if waiters is None else {int(pid): count for pid, count in waiters.items()},
            blockers=None if blockers is None else {int(pid): frozenset(by) for pid, by in blockers.items()},
        )


class _SavedSession(_Saved):
    pid: _Count
    backend_start: _Time
    database: _Text | None = None
    role: _Text | None = None
    application: _Text | None = None
    client: _Text | None = None
    kind: _Text = CLIENT_BACKEND
    role_oid: _Whole | None = None
    superuser: bool = False
    client_port: _Whole | None = None
    state: _Text | None = None
    state_change: _Time | None = None
    query_start: _Time | None = None
    xact_start: _Time | None = None
    wait_event: _Text | None = None
    xid_age: _Whole | None = None
    last_query_listens: bool = False
    last_query_starts_backup: bool = False
    query: _Text | None = None

    def value(self) -> Session:
        elsewhere = {"pid", "backend_start", *Identity._fields}
        return Session(
            id=SessionId(self.pid, self.backend_start),
            identity=Identity(self.database, self.role, self.application, self.client),
            **{name: value for name, value in self if name not in elsewhere},
        )


class _SavedSnapshot(_Saved):
    """A file; its sessions are validated one by one, so that a long list of bad ones takes no memory."""

    snapshot: Literal[1]
    server: _Text
    at: _Time
    slots: _Object[_SavedSlots]
    watcher: _Object[_SavedWatcher]
    unreadable: _Count = 0
    facts: _Object[_SavedFacts] = _SavedFacts()
    sessions: _OfBackends[list[object]]


def parse_snapshot(data: bytes, *, file: str) -> Snapshot:
    """Return the snapshot that `dump_snapshot` wrote. Raises BadSnapshot with all that is wrong with it."""
    if len(data) > MAX_BYTES:
        raise BadSnapshot([f"{file}: it has more than {MAX_BYTES} bytes, too many for a snapshot"])
    document = _parse_json(data, file)
    problems = list[str]()
    head = _validated(_HEAD, document, (), problems)
    sessions = dict[SessionId, Session]()
    for number, value in enumerate(_listed(document)):
        if len(problems) > _MAX_PROBLEMS:
            break
        if saved := _validated(_SESSION, value, ("sessions", number), problems):
            session = saved.value()
            if session.id in sessions:
                problems.append(f"sessions[{number}]: the same pid and backend_start as another; remove one")
            sessions[session.id] = session
    if problems or head is None:
        more = ["more problems of this kind"] if len(problems) > _MAX_PROBLEMS else []
        raise BadSnapshot(f"{file}: {problem}" for problem in (*problems[:_MAX_PROBLEMS], *more))
    return Snapshot(
        server=head.server,
        at=head.at,
        slots=Slots(**dict(head.slots)),
        watcher=Watcher(**dict(head.watcher)),
        sessions=tuple(sessions.values()),
        unreadable=head.unreadable,
        facts=head.facts.value(),
    )


_HEAD: Final = TypeAdapter[_SavedSnapshot](_Object[_SavedSnapshot])
_SESSION: Final = TypeAdapter[_SavedSession](_Object[_SavedSession])


def _listed(document: object) -> Iterable[object]:
    listed = document.get("sessions") if isinstance(document, dict) else None
    return listed if isinstance(listed, list) else ()


def _validated(
    adapter: TypeAdapter[_T], value: object, at: tuple[int | str, ...], problems: list[str]
) -> _T | None:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        found = islice(error.errors(include_url=False), _MAX_PROBLEMS + 1)
        problems += [_sentence(each, (*at, *each["loc"])) for each in found]
        return None


def _sentence(problem: ErrorDetails, place: tuple[int | str, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in place if step != "[key]")
    where = "".join(steps).removeprefix(".")
    value = problem["input"]
    shown = (
        "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"{value!r:.60}"
    )
    # Pydantic's own sentence names a class of ours.
    wrong = "Input should be an object" if problem["type"] == "model_type" else problem["msg"]
    return f"{where}{': ' if where else ''}{wrong} (it is {shown}); write it as `reaper snapshot` does"


def _key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else f"{key!r:.60}"


def _parse_json(data: bytes, file: str) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"), parse_int=_bounded_int)
    except json.JSONDecodeError as error:
        problem = f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
    except UnicodeDecodeError as error:
        problem = f"{file}: not UTF-8 at byte {error.start}; give a file that `reaper snapshot` wrote"
    except RecursionError:
        problem = f"{file}: nested too deeply; a snapshot has three levels"
    raise BadSnapshot([problem])


def _bounded_int(digits: str) -> int:
    # Python refuses to convert thousands of digits; the first of them are beyond every bound as well.
    return int(digits[:_MAX_DIGITS])
