"""The format of a saved snapshot: what may stand where, and the sentence for what may not."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

FORMAT: Final = 1

_NOT_FIELDS: Final = {"id", "identity", "counted_from"}
"""Shown in another form; and what only the run that noticed a jump of the clock can know."""


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as a file: ASCII, whatever a client put into its name."""
    head = {
        "snapshot": FORMAT,
        "server": snapshot.server,
        "at": isoformat(snapshot.at),
        "slots": asdict(snapshot.slots),
        "watcher": asdict(snapshot.watcher),
        "unreadable": snapshot.unreadable,
        "facts": _facts(snapshot.facts),
    }
    # The head without its closing brace, so that each session can stand on a line of its own.
    opening = json.dumps(head, indent=2).removesuffix("\n}")
    sessions = ",\n".join(f"    {json.dumps(_session(session))}" for session in snapshot.sessions)
    return f'{opening},\n  "sessions": [\n{sessions}\n  ]\n}}\n'.encode("ascii")


def _facts(facts: Facts) -> dict[str, object]:
    holders, waiters, blockers = facts.advisory_lock_holders, facts.waiters, facts.blockers
    return {
        "advisory_lock_holders": None if holders is None else sorted(holders),
        "waiters": None if waiters is None else {str(pid): count for pid, count in waiters.items()},
        "blockers": None if blockers is None else {str(pid): sorted(them) for pid, them in blockers.items()},
    }


def _session(session: Session) -> dict[str, object]:
    fields = {name: getattr(session, name) for name in session.__slots__ if name not in _NOT_FIELDS}
    for name in ("state_change", "query_start", "xact_start"):
        fields[name] = isoformat(fields[name])
    return {
        "pid": session.id.pid,
        "backend_start": isoformat(session.id.backend_start),
        **session.identity._asdict(),
        **fields,
    }


_MOST_BACKENDS: Final = 262_143
"""No server has more; what counts them is not read beyond, for every mistake in it takes memory."""
_MOST_KEYS: Final = 100


class BadSnapshot(Exception):
    """A file is no snapshot; every problem is a line that says where, what, and what to write instead."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


_NO_INSTANT: Final = "instant"
_CROWD: Final = "crowd"
_LITTER: Final = "litter"
_BEYOND_THE_CALENDAR: Final = re.compile(r"(-?\d{1,20})us", re.ASCII)


def _instant(value: object) -> Instant:
    if time := parse_time(value):
        return from_datetime(time)
    if isinstance(value, str) and (beyond := _BEYOND_THE_CALENDAR.fullmatch(value)):
        return Instant(int(beyond[1]))
    raise PydanticCustomError(_NO_INSTANT, "not an instant")


def _of_backends(value: object) -> object:
    if isinstance(value, list | dict) and len(value) > _MOST_BACKENDS:
        raise PydanticCustomError(_CROWD, "too many", {"most": _MOST_BACKENDS})
    return value


# Not pydantic's own str: it refuses lone surrogates, and a client may have put one into its name.
_Text = InstanceOf[str]
_Moment = Annotated[Instant, PlainValidator(_instant)]
_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Pids = Annotated[list[_Count], BeforeValidator(_of_backends)]
_Pid = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        """Refuse at once what would be refused key by key."""
        if isinstance(value, dict) and len(value) > _MOST_KEYS:
            raise PydanticCustomError(_LITTER, "too many", {"most": _MOST_KEYS})
        return value


_P = TypeVar("_P", bound=_Part)


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
    advisory_lock_holders: Annotated[list[_Count] | None, BeforeValidator(_of_backends)] = None
    waiters: Annotated[dict[_Pid, _Count] | None, BeforeValidator(_of_backends)] = None
    blockers: Annotated[dict[_Pid, _Pids] | None, BeforeValidator(_of_backends)] = None

    def value(self) -> Facts:
        holders, waiters, blockers = self.advisory_lock_holders, self.waiters, self.blockers
        return Facts(
            advisory_lock_holders=None if holders is None else frozenset(holders),
            waiters=None if waiters is None else {int(pid): count for pid, count in waiters.items()},
            blockers=None
            if blockers is None
            else {int(pid): frozenset(them) for pid, them in blockers.items()},
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
        named = {"pid", "backend_start", *Identity._fields}
        return Session(
            id=SessionId(self.pid, self.backend_start),
            identity=Identity(self.database, self.role, self.application, self.client),
            **{name: value for name, value in self if name not in named},
        )


class _Document(_Part):
    snapshot: Literal[1]
    server: _Text
    at: _Moment
    slots: _Slots
    watcher: _Watcher
    unreadable: _Count = 0
    facts: _Facts = _Facts()
    sessions: Annotated[list[object], BeforeValidator(_of_backends)]
    """Read one by one, and no further than somebody would mend them at once."""

    def value(self, sessions: Iterable[_Session]) -> Snapshot:
        return Snapshot(
            server=self.server,
            at=self.at,
            slots=Slots(**dict(self.slots)),
            watcher=Watcher(**dict(self.watcher)),
            sessions=tuple(session.value() for session in sessions),
            unreadable=self.unreadable,
            facts=self.facts.value(),
        )


def read_document(document: object, file: str) -> Snapshot:
    """The snapshot that this JSON value stands for; BadSnapshot says everything that is wrong with it."""
    problems = _Problems(file)
    head = problems.read(_Document, document, ())
    sessions = [
        problems.read(_Session, session, ("sessions", number))
        for number, session in enumerate(_sessions(document))
        if not problems.are_enough
    ]
    if head is None or problems:
        raise BadSnapshot(problems.told())
    return head.value(session for session in sessions if session)


def _sessions(document: object) -> Sequence[object]:
    sessions = document.get("sessions") if isinstance(document, dict) else None
    return sessions if isinstance(sessions, list) and len(sessions) <= _MOST_BACKENDS else ()


class _Problems:
    """Collects what is wrong, each mistake with its place."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def are_enough(self) -> bool:
        """Whether there are more than are told."""
        return len(self._found) > _MOST_PROBLEMS

    def read(self, model: type[_P], value: object, place: tuple[int | str, ...]) -> _P | None:
        """A part of the file, or nothing."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for problem in islice(error.errors(include_url=False), _MOST_PROBLEMS + 1):
                where = _where((*place, *problem["loc"]))
                self._found.append(f"{self._file}: {where}{_sentence(problem)}")
        return None

    def told(self) -> Iterator[str]:
        """A line for each, but not for thousands."""
        yield from self._found[:_MOST_PROBLEMS]
        if self.are_enough:
            yield f"{self._file}: and more of this kind"


_MOST_PROBLEMS: Final = 20
_SENTENCES: Final = {
    "missing": "it is missing; write it as `reaper snapshot` does",
    _CROWD: "it holds more than {most} entries, and no server has so many backends; take them out",
    _LITTER: "it holds more than {most} keys, and a snapshot has few; remove those that it does not know",
    "string_unicode": "it has a key that is no text; remove it",
    "extra_forbidden": "a snapshot has no such key; remove it",
    "int_type": "{value} is no whole number; write one",
    "bool_type": "{value} is neither true nor false; write one of them",
    "is_instance_of": "{value} is no text; write it in quotes",
    _NO_INSTANT: '{value} is no instant; write it like "2026-01-31T23:59:59.000000Z"',
    "greater_than_equal": "{value} is too small; write {ge} or more",
    "less_than": "{value} is too large; write less than {lt}",
    "literal_error": "{value} is no version of this format; write 1",
    "string_pattern_mismatch": "{value} is no pid; write its digits in quotes",
    "list_type": "{value} is no list; write one in [ ]",
    "dict_type": "{value} is no object; write one in {{ }}",
    "model_type": "{value} is no object; write one in {{ }}",
}


def _sentence(problem: ErrorDetails) -> str:
    limits = problem.get("ctx", {})
    sentence = _SENTENCES.get(problem["type"])
    if sentence is None:
        return f"{_spelled(problem['input'])}: {problem['msg']}; write what `reaper snapshot` writes"
    return sentence.format(value=_spelled(problem["input"]), **limits)


def _where(place: Sequence[int | str]) -> str:
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{_named(part)}" for part in place if part != "[key]"
    )
    where = "".join(parts).removeprefix(".")
    return f"{where}: " if where else ""


def _named(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else f"{key!r:.60}"


def _spelled(value: object) -> str:
    """A value as the file spells it, on one line, harmless and short."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"{value!r:.60}"


MOST_BYTES: Final = 32 * 1024 * 1024
"""The longest file that is read: tens of thousands of sessions, many times what most servers ever show."""

_MOST_DIGITS: Final = 40


def parse_snapshot(data: bytes, *, file: str) -> Snapshot:
    """Read a snapshot back, whole or not at all; BadSnapshot says everything that is wrong with it."""
    if len(data) > MOST_BYTES:
        told = f"it has more than {MOST_BYTES} bytes, and no snapshot is so large; name another file"
        raise BadSnapshot([f"{file}: {told}"])
    snapshot = read_document(_json(data, file), file)
    seen = set[SessionId]()
    for number, session in enumerate(snapshot.sessions):
        if session.id in seen:
            told = f"pid {session.id.pid} with this backend_start stands here twice; remove one of them"
            raise BadSnapshot([f"{file}: sessions[{number}]: {told}"])
        seen.add(session.id)
    return snapshot


def _json(data: bytes, file: str) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once, parse_int=_whole)
    except json.JSONDecodeError as error:
        told = f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
    except UnicodeDecodeError as error:
        told = f"{file}: not UTF-8 at byte {error.start}; write what `reaper snapshot` wrote"
    except RecursionError:
        told = f"{file}: nested too deeply; a snapshot has three levels"
    except ValueError as error:
        told = f"{file}: {error}"
    raise BadSnapshot([told])


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        message = f"the number {digits[:_MOST_DIGITS]}... has {len(digits)} digits; write a whole number"
        raise ValueError(message)
    return int(digits)


def _once(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    values = dict[str, object]()
    for key, value in pairs:
        if key in values:
            message = f"the key {key!r:.60} stands twice in one object; remove one of them"
            raise ValueError(message)
        values[key] = value
    return values
