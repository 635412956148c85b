"""Judges each termination: was it right, and was its intent in the audit log before?

The accounts of the clients decide about the use of sessions, the server's log about their ends, and the audit
log about nothing but its own intents and outcomes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple

from tests.lab.clients.session import TERMINATED, SessionAccount, SessionKey, wall

from .logs import AuditLog, LoggedIntent, TerminationByServer

_MICROSECONDS: Final = 1_000_000
_LONGEST_ACT: Final = timedelta(hours=1)
"""Longer than any fault, and shorter than any step of a clock."""
_STEP: Final = 5.0
"""The seconds by which two clocks may disagree before one of them was set."""


class Judgement(StrEnum):
    """The judgement about one termination."""

    RIGHT = "right"
    CROSSED = "crossed"
    """Right when the guard checked; the next statement was on its way or came before the signal."""
    EXECUTING = "executing"
    """Overdue, and its next statement had just begun: the microseconds between check and signal."""
    WRONG = "wrong"


class JudgedTermination(NamedTuple):
    """One termination and its judgement."""

    termination: TerminationByServer
    judgement: Judgement
    why: str
    intended: bool
    at: float
    """By the clock of this host if the client noticed it, otherwise by the server's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The result of comparing everything."""

    cases: Sequence[JudgedTermination]
    client_losses: int
    """The number of terminations that the clients report as well."""
    open_intents: Sequence[LoggedIntent]
    orphans: Sequence[LoggedIntent]
    """Intents that the end of a run left open, and a later run settled as unknown."""
    overlaps: Sequence[tuple[LoggedIntent, LoggedIntent]]
    """Terminations of two reapers at the same time."""

    def of(self, judgement: Judgement) -> list[JudgedTermination]:
        """The cases with this judgement."""
        return [case for case in self.cases if case.judgement is judgement]

    @property
    def unannounced(self) -> list[JudgedTermination]:
        """Terminations without an intent before them."""
        return [case for case in self.cases if not case.intended]


def judge(
    terminations: Iterable[TerminationByServer],
    accounts: Iterable[SessionAccount],
    audit_log: AuditLog,
) -> Findings:
    """Compare the server's log, the clients' accounts and the audit log."""
    known = {each.key: each for each in accounts if each.began}
    intents = sorted(audit_log.intents.values(), key=attrgetter("written"))
    first = {intent.key: intent for intent in reversed(intents)}
    checked = {intent.key: intent.checked_again for intent in intents if intent.checked_again}
    ended = list(terminations)
    keys = {each.key for each in ended}
    orphans = [intent for intent in intents if intent.orphaned]
    return Findings(
        cases=[_case(each, known, first, checked) for each in ended],
        client_losses=sum(each.sqlstate == TERMINATED for key, each in known.items() if key in keys),
        open_intents=audit_log.open,
        orphans=orphans,
        overlaps=_overlaps(intents),
    )


def _case(
    each: TerminationByServer,
    known: Mapping[SessionKey, SessionAccount],
    first: Mapping[SessionKey, LoggedIntent],
    checked: Mapping[SessionKey, datetime],
) -> JudgedTermination:
    account, intent = known.get(each.key), first.get(each.key)
    judgement, why = _judged(each, account, checked.get(each.key))
    at = each.seconds if account is None or account.ended_at is None else wall(account.ended_at)
    return JudgedTermination(
        each, judgement, why, intent is not None and _was_before(intent, each, account), at
    )


def _was_before(intent: LoggedIntent, each: TerminationByServer, account: SessionAccount | None) -> bool:
    """Return True if the intent was written before the signal."""
    if account and account.ended_at is not None and _clock_was_set(each, account):
        return intent.written < wall(account.ended_at)
    return intent.seen_at.timestamp() < each.seconds


def _judged(
    each: TerminationByServer, account: SessionAccount | None, checked: datetime | None
) -> tuple[Judgement, str]:
    if account is None:
        return Judgement.WRONG, f"a session of none of our clients: {each.application!r}"
    if account.limit is None:
        return Judgement.WRONG, f"{account.kind} must never be terminated"
    unused = _unused(each, account)
    if unused < account.limit and _woke_unseen(account, account.limit, checked):
        return Judgement.CROSSED, ""
    if unused < account.limit:
        return (
            Judgement.WRONG,
            f"{account.kind} was used {unused:.6f} s before; its limit is {account.limit} s",
        )
    if each.executing:
        return Judgement.EXECUTING, f"{account.kind} woke up {unused - account.limit:.6f} s after its limit"
    return (Judgement.CROSSED if account.waiting else Judgement.RIGHT), ""


def _woke_unseen(account: SessionAccount, limit: float, checked: datetime | None) -> bool:
    """Return True if it was overdue when the guard checked, and was used between that and the signal."""
    return (
        checked is not None
        and account.rested >= limit
        and account.last.server_time >= checked.timestamp() * _MICROSECONDS
    )


def _unused(each: TerminationByServer, account: SessionAccount) -> float:
    """The seconds since the client last used it, at most."""
    if account.ended_at is None or not _clock_was_set(each, account):
        return _by_server(each, account)
    # The server's clock is exact; once it was set, only the client's clock counts.
    return account.ended_at - account.last.answered


def _clock_was_set(each: TerminationByServer, account: SessionAccount) -> bool:
    """Return True if the server's clock was set between the last answer and the end."""
    by_client = (account.ended_at or 0.0) - account.last.answered
    return abs(_by_server(each, account) - by_client) >= _STEP


def _by_server(each: TerminationByServer, account: SessionAccount) -> float:
    return (each.at - account.last.server_time) / _MICROSECONDS


def _overlaps(intents: Sequence[LoggedIntent]) -> list[tuple[LoggedIntent, LoggedIntent]]:
    """Terminations by two runs at the same time, by the server's clock."""
    acting = sorted(((_began(intent), intent) for intent in intents if intent.until), key=itemgetter(0))
    found = []
    for number, (_, intent) in enumerate(acting):
        for began, later in acting[number + 1 :]:
            if intent.until is None or began >= intent.until:
                break
            if later.run != intent.run:
                found.append((intent, later))
    return found


def _began(intent: LoggedIntent) -> datetime:
    """When its cycle began, by the clock that showed its outcome, because the clock may be set meanwhile."""
    until = intent.until or intent.seen_at
    near = (each for each in (intent.seen_at, intent.checked_again) if each and _is_near(each, until))
    return next(near, until)


def _is_near(one: datetime, other: datetime) -> bool:
    return timedelta(0) <= other - one < _LONGEST_ACT
