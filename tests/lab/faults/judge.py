"""The judge: who was terminated, whether it was deserved, and whether the record knew of it before.

It believes the clients about their sessions, the servers' logs about the ends, and the record about nothing
but its own intents and outcomes.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple

from .chains import Verified
from .records import Deed
from .server_log import Termination, Who
from .wire import Deposition

_MICROSECONDS: Final = 1_000_000
_LONGEST_ACT: Final = timedelta(hours=1)
"""Longer than any fault lasts, and shorter than any clock is stepped by."""
_STEP: Final = 5.0
"""Seconds; a server's clock that is further ahead of ours than before has been stepped."""


class Judgement(StrEnum):
    """What the judge thinks of one termination."""

    DESERVED = "deserved"
    OVERTAKEN = "overtaken"
    """Deserved when the act looked; its client's next statement was on its way or came before the signal."""
    AT_WORK = "at work"
    """Overdue, and its next statement had just begun: the microseconds that no guard can close."""
    WRONG = "wrong"


class Case(NamedTuple):
    """One termination, who says what about it, and the judgement."""

    termination: Termination
    deposition: Deposition | None
    judgement: Judgement
    why: str
    intended: bool
    at: float
    """When, by the clock of this host if its client can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What came out of a campaign."""

    cases: Sequence[Case]
    """Terminations that nobody but the reaper can have done."""
    by_others: int
    """Terminations by the campaign itself."""
    losses: int
    """How many sessions the clients say that an administrator's command took from them."""
    open_intents: Sequence[Deed]
    orphans: Sequence[Deed]
    """Intents that the end of a life left open, and a later one settled as unknown."""
    orphans_gone: int
    """How many of them were terminated all the same."""
    rivals: Sequence[tuple[Deed, Deed]]
    """Acts of two reapers that overlap."""
    chains: Sequence[Verified] = ()
    """What the chains of the records say."""
    unread: Sequence[str] = ()
    """Histories that cannot be read."""

    def of(self, judgement: Judgement) -> list[Case]:
        """The cases of one kind."""
        return [case for case in self.cases if case.judgement is judgement]

    @property
    def unannounced(self) -> list[Case]:
        """Terminations that no record had announced."""
        return [case for case in self.cases if not case.intended]


def judge(
    terminations: Iterable[Termination],
    depositions: Iterable[Deposition],
    deeds: Sequence[Deed],
    *,
    by_others: Collection[Who],
    chains: Sequence[Verified] = (),
    unread: Sequence[str] = (),
) -> Findings:
    """Hear everybody, and find."""
    told = {Who(each.began, each.pid): each for each in depositions if each.pid}
    announced = _announced(deeds)
    looked = {deed.who: deed.inspect_again for deed in deeds if deed.inspect_again}
    seen = list(terminations)
    orphans = [deed for deed in deeds if deed.orphaned]
    gone = {each.who for each in seen}
    return Findings(
        cases=[_case(each, told, announced, looked) for each in seen if each.who not in by_others],
        by_others=sum(each.who in by_others for each in seen),
        losses=_losses(told, seen),
        open_intents=[deed for deed in deeds if deed.outcome is None],
        orphans=orphans,
        orphans_gone=sum(deed.who in gone for deed in orphans),
        rivals=_rivals(deeds),
        chains=chains,
        unread=unread,
    )


def _case(
    each: Termination,
    told: Mapping[Who, Deposition],
    announced: Mapping[Who, Deed],
    looked: Mapping[Who, datetime],
) -> Case:
    said = told.get(each.who)
    judgement, why = _judged(each, said, looked.get(each.who))
    at = each.at / _MICROSECONDS if said is None or said.ended_at is None else _by_wall(said.ended_at)
    deed = announced.get(each.who)
    return Case(each, said, judgement, why, deed is not None and _was_first(deed, each, said), at)


def _announced(deeds: Iterable[Deed]) -> dict[Who, Deed]:
    """What first announced the end of each session."""
    announced = dict[Who, Deed]()
    for deed in sorted(deeds, key=attrgetter("written")):
        announced.setdefault(deed.who, deed)
    return announced


def _was_first(deed: Deed, each: Termination, said: Deposition | None) -> bool:
    """Whether the intent stood there before the act."""
    if said and said.ended_at is not None and _stepped(each, said):
        return deed.written < _by_wall(said.ended_at)
    return deed.since.timestamp() * _MICROSECONDS < each.at


def _judged(each: Termination, said: Deposition | None, looked: datetime | None) -> tuple[Judgement, str]:
    if said is None:
        return Judgement.WRONG, f"a session that no client of ours had: {each.application!r}"
    if said.limit is None:
        return Judgement.WRONG, f"{said.kind} must never be terminated"
    age = _unused(each, said)
    if age < said.limit and _woke_unseen(said, said.limit, looked):
        return Judgement.OVERTAKEN, ""
    if age < said.limit:
        return Judgement.WRONG, f"{said.kind} was used {age:.6f} s before, and may rest for {said.limit} s"
    if each.at_work:
        return Judgement.AT_WORK, f"{said.kind} woke up {age - said.limit:.6f} s too late"
    return (Judgement.OVERTAKEN if said.at_work else Judgement.DESERVED), ""


def _woke_unseen(said: Deposition, limit: float, looked: datetime | None) -> bool:
    """Whether it was overdue until the act had looked, and was used between that look and the signal."""
    return looked is not None and said.rested >= limit and said.told >= looked.timestamp() * _MICROSECONDS


def _unused(each: Termination, said: Deposition) -> float:
    """For how long, at the most, the client had left it alone."""
    if said.ended_at is None or not _stepped(each, said):
        return _by_server(each, said)
    # By the server's clock it is exact; once that was stepped, only the client can say.
    return said.ended_at - said.told_at


def _stepped(each: Termination, said: Deposition) -> bool:
    """Whether the server's clock was stepped between the last answer and the end."""
    by_client = (said.ended_at or 0.0) - said.told_at
    return abs(_by_server(each, said) - by_client) >= _STEP


def _by_server(each: Termination, said: Deposition) -> float:
    return (each.at - said.told) / _MICROSECONDS


def _by_wall(monotonic: float) -> float:
    return monotonic + time.time() - time.monotonic()


def _losses(told: Mapping[Who, Deposition], seen: Sequence[Termination]) -> int:
    logged = {each.who for each in seen}
    return sum(said.sqlstate == "57P01" for who, said in told.items() if who in logged)


def _rivals(deeds: Sequence[Deed]) -> list[tuple[Deed, Deed]]:
    """Cycles of two lives that act on the same server at the same time, by the server's clock."""
    acting = sorted(((_began(deed), deed) for deed in deeds if deed.until), key=itemgetter(0))
    found = []
    for number, (_, deed) in enumerate(acting):
        for began, later in acting[number + 1 :]:
            if deed.until is None or began >= deed.until:
                break
            if later.run != deed.run:
                found.append((deed, later))
    return found


def _began(deed: Deed) -> datetime:
    """When its cycle looked, by the clock by which it was done: a step in between makes no long act."""
    until = deed.until or deed.since
    by_one_clock = (each for each in (deed.since, deed.inspect_again) if each and _is_near(each, until))
    return next(by_one_clock, until)


def _is_near(one: datetime, other: datetime) -> bool:
    return timedelta(0) <= other - one < _LONGEST_ACT
