"""Who is connected, application by application, and what the reaper says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reaper.policy.plan import Outcome, Result, Spare, Spared, Verdict, longest_idle_first
from reaper.policy.protections import SELF
from reaper.policy.session import ACTIVE, IN_TRANSACTION, Session
from reaper.policy.time import Instant, since, words
from reaper.service.cycle import Cycle


class Tone(StrEnum):
    """How a session stands with the reaper, from safe to gone."""

    SPARED = "protected"
    IN_USE = "not due"
    DUE = "due"
    ENDED = "terminated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a cycle made of one session."""

    session: Session
    tone: Tone
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The sessions of one application."""

    application: str
    sessions: int = 0
    state: str = ""
    """Of the one that has been idle for longest."""
    tone: Tone = Tone.ENDED
    says: str = ""


_ORDER: Final = tuple(Tone)
_WOULD: Final = "dry run: would terminate"
_ITSELF: Final = "the reaper itself"
_COUNTED: Final = (_WOULD, Result.TERMINATED)
_FOR_GOOD: Final = (Spared.PROTECTION, Spared.ALLOWLIST)
_FOR_NOW: Final = (Spared.PACE, Spared.FIRST_SIGHTING, Spared.REHEARSED, Spared.BRAKE)


def standings(cycle: Cycle) -> list[Standing]:
    """Every session, in the order of its tone and its application."""
    outcomes = {reap.session.id: outcome for reap, outcome in cycle.settled}
    every = [_standing(verdict, outcomes.get(verdict.session.id)) for verdict in cycle.plan.verdicts]
    return sorted(every, key=lambda one: (_ORDER.index(one.tone), one.session.identity.application or ""))


def groups(cycle: Cycle, applications: Sequence[str]) -> Iterator[Group]:
    """A group for each of these applications, also for one that has left."""
    every = standings(cycle)
    for application in applications:
        members = [one for one in every if one.session.identity.application == application]
        if members:
            yield _group(application, members, cycle.snapshot.at)
        else:
            yield Group(application=application, says="gone")


def _standing(verdict: Verdict, outcome: Outcome | None) -> Standing:
    tone, says = _spared(verdict) if isinstance(verdict, Spare) else _reaped(outcome)
    return Standing(session=verdict.session, tone=tone, says=says)


def _reaped(outcome: Outcome | None) -> tuple[Tone, str]:
    if outcome is None or outcome.result is Result.REHEARSED:
        return Tone.DUE, _WOULD
    return Tone.ENDED if outcome.result is Result.TERMINATED else Tone.IN_USE, outcome.result


def _spared(spare: Spare) -> tuple[Tone, str]:
    if spare.protection == SELF:
        return Tone.IN_USE, _ITSELF
    if spare.by is Spared.UNMATCHED:
        return Tone.IN_USE, Tone.IN_USE
    if spare.by in _FOR_GOOD:
        return Tone.SPARED, spare.reason
    says = _WOULD if spare.by is Spared.REHEARSED else spare.reason
    return Tone.DUE if spare.by in _FOR_NOW else Tone.IN_USE, says


def _group(application: str, members: Sequence[Standing], now: Instant) -> Group:
    telling = max(members, key=lambda one: _ORDER.index(one.tone))
    oldest = min((one.session for one in members), key=longest_idle_first)
    return Group(
        application=application,
        sessions=len(members),
        state=_state(oldest, now),
        tone=telling.tone,
        says=_counted(telling.says, [one.says for one in members]),
    )


def _counted(says: str, everybody: Sequence[str]) -> str:
    if says not in _COUNTED or len(everybody) == 1:
        return says
    return f"{says} {everybody.count(says)} of {len(everybody)}"


def _state(session: Session, now: Instant) -> str:
    if session.state == ACTIVE:
        return ACTIVE
    in_transaction = session.state == IN_TRANSACTION
    age = since(session.xact_start if in_transaction else session.state_change, now)
    state = "in transaction" if in_transaction else session.state or "unknown"
    return state if age is None else f"{state} {words(age)}"
