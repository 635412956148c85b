"""Saved snapshots: one JSON file that people can read and edit, validated as a whole when it is read back."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainValidator,
    ValidationError,
    model_validator,
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
from reaper.policy.time import Instant, from_datetime, isoformat, parse_time

_FORMAT: Final = 1
MAX_BYTES: Final = 32 * 1024 * 1024
"""Tens of thousands of sessions."""
_MAX_BACKENDS: Final = 262_143
"""PostgreSQL allows no more. Longer lists are not validated, because each mistake in them takes memory."""
_MAX_KEYS: Final = 100
_MAX_DIGITS: Final = 40
_MAX_PROBLEMS: Final = 20
_BAD: Final = "snapshot"
_NOT_A_TIME: Final = "not a time like 2026-01-31T23:59:59.000000Z"
_TOO_MANY: Final = "more than {most} entries"


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
    moments = {
        name: isoformat(getattr(session, name)) for name in ("state_change", "query_start", "xact_start")
    }
    # What is counted from a jump of the clock is known only to the run that noticed it.
    left_out = {"id", "identity", "counted_from"}
    fields = {name: getattr(session, name) for name in session.__slots__ if name not in left_out}
    began = isoformat(session.id.backend_start)
    return {"pid": session.id.pid, "backend_start": began, **session.identity._asdict(), **fields, **moments}


def _instant(value: object) -> Instant:
    if time := parse_time(value):
        return from_datetime(time)
    if isinstance(value, str) and (beyond := re.fullmatch(r"(-?\d{1,20})us", value, re.ASCII)):
        return Instant(int(beyond[1]))  # as `isoformat` writes a time outside the calendar
    raise PydanticCustomError(_BAD, _NOT_A_TIME)


def _at_most_backends(value: object) -> object:
    if isinstance(value, list | dict) and len(value) > _MAX_BACKENDS:
        raise PydanticCustomError(_BAD, _TOO_MANY, {"most": _MAX_BACKENDS})
    return value


# Not pydantic's own str: it refuses lone surrogates, and a client may have put one into its name.
_Text = InstanceOf[str]
_Moment = Annotated[Instant, PlainValidator(_instant)]
_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Pids = Annotated[list[_Count], BeforeValidator(_at_most_backends)]
_Pid = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, value: Any) -> Any:  # noqa: ANN401 (any JSON)
        if isinstance(value, dict) and len(value) > _MAX_KEYS:
            raise PydanticCustomError(_BAD, _TOO_MANY, {"most": _MAX_KEYS})
        return value


class _Slots(_Part):
    total: _Count
    reserved: _Count
    used: _Count
    superuser_reserved: _Count | None = None


class _Watcher(_Part):
    pid: _Count
    role: _Text
    superuser: bool


class _Facts(_Part):
    advisory_lock_holders: _Pids | None = None
    waiters: Annotated[dict[_Pid, _Count] | None, BeforeValidator(_at_most_backends)] = None
    blockers: Annotated[dict[_Pid, _Pids] | None, BeforeValidator(_at_most_backends)] = None

    def value(self) -> Facts:
        holders, waiters, blockers = self.advisory_lock_holders, self.waiters, self.blockers
        return Facts(
            advisory_lock_holders=None if holders is None else frozenset(holders),
            waiters=None if waiters is None else {int(pid): count for pid, count in waiters.items()},
            blockers=None if blockers is None else {int(pid): frozenset(by) for pid, by in blockers.items()},
        )


class _Session(_Part):
    pid: _Count
    backend_start: _Moment
    database: _Text | None = None
    role: _Text | None = None
    application: _Text | None = None
    client: _Text | None = None
    kind: _Text = CLIENT_BACKEND
    role_oid: _Whole | None = None
    superuser: bool = False
    client_port: _Whole | None = None
    state: _Text | None = None
    state_change: _Moment | None = None
    query_start: _Moment | None = None
    xact_start: _Moment | None = None
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


class _Document(_Part):
    snapshot: Literal[1]
    server: _Text
    at: _Moment
    slots: _Slots
    watcher: _Watcher
    unreadable: _Count = 0
    facts: _Facts = _Facts()
    sessions: Annotated[list[object], BeforeValidator(_at_most_backends)]
    """Validated one by one, so that a long list of bad ones takes no memory."""

    def value(self, sessions: Iterable[Session]) -> Snapshot:
        return Snapshot(
            server=self.server,
            at=self.at,
            slots=Slots(**dict(self.slots)),
            watcher=Watcher(**dict(self.watcher)),
            sessions=tuple(sessions),
            unreadable=self.unreadable,
            facts=self.facts.value(),
        )


def parse_snapshot(data: bytes, *, file: str) -> Snapshot:
    """Return the snapshot that `dump_snapshot` wrote. Raises BadSnapshot with all that is wrong with it."""
    if len(data) > MAX_BYTES:
        raise BadSnapshot([f"{file}: it has more than {MAX_BYTES} bytes, too many for a snapshot"])
    document = _parse_json(data, file)
    problems = list[str]()
    head = _validated(_Document, document, (), problems)
    listed = document.get("sessions") if isinstance(document, dict) else None
    sessions = dict[SessionId, Session]()
    for number, value in enumerate(listed if isinstance(listed, list) else ()):
        if len(problems) > _MAX_PROBLEMS:
            break
        if part := _validated(_Session, value, ("sessions", number), problems):
            session = part.value()
            if session.id in sessions:
                problems.append(f"sessions[{number}]: the same pid and backend_start as another; remove one")
            sessions[session.id] = session
    if problems or head is None:
        more = ["more problems of this kind"] if len(problems) > _MAX_PROBLEMS else []
        raise BadSnapshot(f"{file}: {problem}" for problem in (*problems[:_MAX_PROBLEMS], *more))
    return head.value(sessions.values())


_P = TypeVar("_P", bound=_Part)


def _validated(model: type[_P], value: object, at: tuple[int | str, ...], problems: list[str]) -> _P | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = islice(error.errors(include_url=False), _MAX_PROBLEMS + 1)
        problems += [_sentence(each, (*at, *each["loc"])) for each in found]
        return None


def _sentence(problem: ErrorDetails, place: tuple[int | str, ...]) -> str:
    where = "".join(
        f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in place if part != "[key]"
    )
    value = problem["input"]
    shown = (
        "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"{value!r:.60}"
    )
    where = f"{where.removeprefix('.')}: " if where else ""
    # Pydantic's own sentence names a class of ours.
    wrong = "Input should be an object" if problem["type"] == "model_type" else problem["msg"]
    return f"{where}{wrong} (it is {shown}); write it as `reaper snapshot` does"


def _key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else f"{key!r:.60}"


def _parse_json(data: bytes, file: str) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_int=_bounded_int)
    except json.JSONDecodeError as error:
        problem = f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
    except UnicodeDecodeError as error:
        problem = f"{file}: not UTF-8 at byte {error.start}; give a file that `reaper snapshot` wrote"
    except RecursionError:
        problem = f"{file}: nested too deeply; a snapshot has three levels"
    except ValueError as error:
        problem = f"{file}: {error}"
    raise BadSnapshot([problem])


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        message = f"the number {digits[:_MAX_DIGITS]}... has {len(digits)} digits; write a smaller one"
        raise ValueError(message)
    return int(digits)


def _unique_keys(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    values = dict[str, object]()
    for key, value in pairs:
        if key in values:
            message = f"the key {key!r:.60} stands twice in one object; remove one of them"
            raise ValueError(message)
        values[key] = value
    return values
