"""Asking a reaper that runs what its rehearsals have shown; what it says need not be well formed."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from reaper.cli.exits import Misconfigured, ServerTrouble
from reaper.cli.reaper_port import NoReaper, base_of, read, told_at, unlike_us
from reaper.policy.assessment import FORMAT

_USUAL: Final = "http://127.0.0.1:9432"


class _Told(BaseModel):
    """A part of the answer; a later reaper may tell more."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Counts(_Told):
    unused: int
    left: int
    revived: int
    unknown: int
    too_soon: int
    regret: float | None
    regret_up_to: float
    regret_if_all_who_left_were_used: float | None


class _Application(_Counts):
    application: str


class _Limit(_Told):
    key: str
    limit: str
    revived: int
    judged: int


class _Policy(_Counts):
    policy: str
    advice: str
    said: str
    acts: int
    earlier_acts: int
    servers: int
    slots_at_once: int
    session_hours: float
    held_back: dict[str, int]
    revived_after_s: float | None
    limit: _Limit | None
    applications: list[_Application]
    more_applications: int


class _Pool(_Told):
    server: str
    policy: str
    role: str | None
    database: str | None
    application: str | None
    client: str | None
    until: str | None
    reason: str


class _Verdicts(_Told):
    rehearsal: int
    policies: list[_Policy]
    left_alone: list[_Pool]


def ask_for_verdicts(url: str) -> dict[str, Any]:
    """What the reaper at this address has seen since it began."""
    base = base_of(url)
    if base is None:
        message = f"--url {url}: write http://HOST:PORT, as in {_USUAL}"
        raise Misconfigured(message)
    try:
        return _read(base, told_at(base, "/rehearsal"))
    except NoReaper as nobody:
        raise ServerTrouble(str(nobody)) from None


def _read(base: str, body: bytes) -> dict[str, Any]:
    try:
        told = _Verdicts.model_validate(read(body))
    except (ValidationError, ValueError, RecursionError):
        told = None
    if told is None or told.rehearsal != FORMAT:
        raise unlike_us(base)
    return told.model_dump()
