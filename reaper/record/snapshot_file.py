"""The format of a saved snapshot: what may stand where, and the sentence for what may not."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PlainValidator, ValidationError
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
from reaper.policy.spans import Instant, from_datetime
from reaper.record.reader import parse_time

FORMAT: Final = 1


class BadSnapshot(Exception):
    """A file is no snapshot; every problem is a line that says where, what, and what to write instead."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


_NO_INSTANT: Final = "instant"
_BEYOND_THE_CALENDAR: Final = re.compile(r"(-?\d{1,20})us", re.ASCII)


def _instant(value: object) -> Instant:
    if time := parse_time(value):
        return from_datetime(time)
    if isinstance(value, str) and (beyond := _BEYOND_THE_CALENDAR.fullmatch(value)):
        return Instant(int(beyond[1]))
    raise PydanticCustomError(_NO_INSTANT, "not an instant")


# Not pydantic's own str: it refuses lone surrogates, and a client may have put one into its name.
_Text = InstanceOf[str]
_Moment = Annotated[Instant, PlainValidator(_instant)]
_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Pid = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Slots(_Part):
    total: _Count
    reserved: _Count
    used: _Count


class _Watcher(_Part):
    pid: _Count
    role: _Text
    superuser: bool


class _Facts(_Part):
    advisory_lock_holders: list[_Count] | None = None
    waiters: dict[_Pid, _Count] | None = None

    def value(self) -> Facts:
        holders, waiters = self.advisory_lock_holders, self.waiters
        return Facts(
            advisory_lock_holders=None if holders is None else frozenset(holders),
            waiters=None if waiters is None else {int(pid): count for pid, count in waiters.items()},
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
    sessions: list[_Session]

    def value(self) -> Snapshot:
        return Snapshot(
            server=self.server,
            at=self.at,
            slots=Slots(total=self.slots.total, reserved=self.slots.reserved, used=self.slots.used),
            watcher=Watcher(**dict(self.watcher)),
            sessions=tuple(session.value() for session in self.sessions),
            unreadable=self.unreadable,
            facts=self.facts.value(),
        )


def read_document(document: object, file: str) -> Snapshot:
    """The snapshot that this JSON value stands for; BadSnapshot says everything that is wrong with it."""
    try:
        return _Document.model_validate(document).value()
    except ValidationError as error:
        found = error.errors(include_url=False)
        told = [f"{file}: {_where(problem['loc'])}{_sentence(problem)}" for problem in found[:_MOST_PROBLEMS]]
        if len(found) > _MOST_PROBLEMS:
            told.append(f"{file}: and {len(found) - _MOST_PROBLEMS} more of this kind")
        raise BadSnapshot(told) from None


_MOST_PROBLEMS: Final = 20
_SENTENCES: Final = {
    "missing": "it is missing; write it as `reaper snapshot` does",
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
