"""Acting: one guarded statement a session, never retried, its outcome confirmed.

A dry run is the other terminator.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from typing import Final

import psycopg
from psycopg import errors

from reaper.policy.plan import Act, Outcome, Reap, Result
from reaper.policy.protections import NEEDS_LOCKS
from reaper.policy.rules import Action
from reaper.policy.session import ACTIVE, SessionId
from reaper.policy.time import SECOND, Instant
from reaper.postgres.decoding import as_flag, as_instant, as_number
from reaper.postgres.encoding import int4s
from reaper.postgres.errors import Lost, Refused, ServerError, sentence
from reaper.postgres.flight import Prepared, Row
from reaper.postgres.guard import guarded
from reaper.postgres.link import Link
from reaper.postgres.sql import statement

_STILL_THERE: Final = Prepared.of(statement("still_there"))
_STILL_ACTIVE: Final = statement("still_active")
_HOLDS_UP_OTHERS: Final = statement("holds_up_others")
_HOLDS_ADVISORY_LOCK: Final = statement("holds_advisory_lock")
_SHORTEST_PAUSE: Final = 0.001
"""Half of all backends are gone after so long."""
_LONGEST_PAUSE: Final = 0.1
_PATIENCE: Final = 2.0
"""Whoever is still there so long after the last one has left will not leave: it is something else."""
_LONGEST_PATIENCE: Final = 10.0
_IN_TIME: Final = 15 * SECOND
"""Nobody waits so long for an answer; what the server comes to only then is not to be done any more."""

Settled = Sequence[tuple[Reap, Outcome]]


class GuardedTerminator:
    """Terminates and cancels, on the connection that observes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def signal(self, reaps: Sequence[Reap], *, heard: Instant) -> Sequence[Outcome]:
        """Look again and signal, each in one statement; SIGNALLED is not the end, and wants to be confirmed.

        All of them are on their way before the first answer: who asks for it stands by so many acts, and
        tells when the server was last heard, by its own clock, for they are not to be done much later.
        Whatever goes wrong here is an outcome, never a reason to try again.
        """
        not_after = Instant(heard + _IN_TIME)
        outcomes: list[Outcome] = []
        for flight in _flights(reaps):
            outcomes += await self._flown(flight, not_after)
        return outcomes

    async def _flown(self, flight: Sequence[Reap], not_after: Instant) -> Sequence[Outcome]:
        if self._link.lost:
            return [Outcome(result=Result.WITHDRAWN, detail="the connection was lost before")] * len(flight)
        try:
            if veto := await self._veto(flight[0]):
                return await self._missed(flight, veto)
            answers = await self._link.fly([guarded(reap, not_after=not_after) for reap in flight])
        except (ServerError, psycopg.Error) as error:
            return [_failed(error)] * len(flight)
        missed = [reap for reap, answer in zip(flight, answers, strict=True) if answer == []]
        why = dict(zip(map(id, missed), await self._told_apart(missed), strict=True))
        pairs = zip(flight, answers, strict=True)
        return [_answered(answer) if answer else why[id(reap)] for reap, answer in pairs]

    async def _veto(self, reap: Reap) -> str | None:
        """What has changed that the guard cannot see."""
        if reap.policy.match.blocking and not await self._holds(_HOLDS_UP_OTHERS, reap):
            return "it no longer holds up anybody"
        if _may_lock_meanwhile(reap) and await self._holds(_HOLDS_ADVISORY_LOCK, reap):
            return "it holds an advisory lock by now"
        return None

    async def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[Settled]:
        """Watch the signalled sessions go, at each look those seen gone; then name who is still there."""
        waiting = {reap.session.id: reap for reap in reaps}
        now = asyncio.get_running_loop().time
        began = progressed = now()
        pause = _SHORTEST_PAUSE
        while waiting and now() < min(progressed + _PATIENCE, began + _LONGEST_PATIENCE):
            await asyncio.sleep(pause)
            try:
                over = await self._over(list(waiting.values()))
                present, at = await self._present(list(waiting.values()))
            except (ServerError, psycopg.Error) as error:
                detail = f"signalled, then {sentence(error)}"
                yield [(reap, Outcome(result=Result.UNKNOWN, detail=detail)) for reap in waiting.values()]
                return
            settled = [
                (reap, _seen(reap, is_there=who in present, at=at))
                for who, reap in waiting.items()
                if who not in present or who in over
            ]
            pause = next_pause(pause, gone=len(settled), left=len(waiting) - len(settled))
            if settled:
                progressed = now()
                for reap, _ in settled:
                    del waiting[reap.session.id]
                yield settled
        detail = f"signalled, and still there {now() - began:.0f}s later"
        yield [(reap, Outcome(result=Result.SIGNALLED, detail=detail)) for reap in waiting.values()]

    async def _holds(self, question: str, reap: Reap) -> bool:
        ((holds,),) = await self._link.rows(question, {"pid": reap.session.id.pid})
        return bool(holds)

    async def _told_apart(self, missed: Sequence[Reap]) -> Sequence[Outcome]:
        if not missed:
            return ()
        try:
            return await self._missed(missed, "it changed before the act")
        except (ServerError, psycopg.Error) as error:
            return [_failed(error)] * len(missed)

    async def _missed(self, reaps: Sequence[Reap], changed: str) -> Sequence[Outcome]:
        """Tell of each session that is no longer as it was whether it has left or has changed."""
        present, now = await self._present(reaps)
        woke = Outcome(result=Result.WOKE, detail=changed, at=now)
        gone = Outcome(result=Result.GONE, detail="it had left by itself", at=now)
        return [woke if reap.session.id in present else gone for reap in reaps]

    async def _present(self, reaps: Sequence[Reap]) -> tuple[AbstractSet[SessionId], Instant]:
        """Who of these is there, and when that was."""
        pids = int4s([reap.session.id.pid for reap in reaps])
        (rows,) = await self._link.ask(_STILL_THERE.asked(pids=pids))
        present = set[SessionId]()
        for pid, began, _ in rows:
            if pid is not None and began is None:
                # A row that hides since when it is there must not pass for a session that has left.
                message = "the reaper may no longer see whether it is there: it has lost pg_read_all_stats"
                raise Refused(message)
            if pid is not None:
                present.add(SessionId(as_number(pid), as_instant(began)))
        return present, as_instant(rows[0][-1])

    async def _over(self, reaps: Sequence[Reap]) -> AbstractSet[SessionId]:
        """Whose statement is over, of those that were to be cancelled; who is not there has none."""
        cancelled = [reap for reap in reaps if reap.action is Action.CANCEL]
        if not cancelled:
            return frozenset()
        rows = await self._link.rows(_STILL_ACTIVE, {"pids": [reap.session.id.pid for reap in cancelled]})
        running = {SessionId(pid, began): (state, query_start) for pid, began, state, query_start in rows}
        return {
            reap.session.id
            for reap in cancelled
            if running.get(reap.session.id) != (ACTIVE, reap.session.query_start)
        }


class Rehearsal:
    """A dry run: takes every decision, and touches nobody."""

    async def signal(self, reaps: Sequence[Reap], *, heard: Instant) -> Sequence[Outcome]:  # noqa: ARG002
        """Say what would have been done."""
        said = (f"dry run: would {reap.action}" for reap in reaps)
        return [Outcome(result=Result.REHEARSED, detail=detail) for detail in said]

    async def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[Settled]:
        """Nothing was signalled, nothing is to be confirmed."""
        yield [(reap, Outcome(result=Result.REHEARSED)) for reap in reaps]


def next_pause(last: float, *, gone: int, left: int) -> float:
    """Until the rest should have left, at the pace of those who left in the last pause.

    Each look takes CPU from those who are leaving; each moment too long they are gone, and nobody knows.
    """
    expected = last * left / gone if gone else 2 * last
    return min(max(expected, _SHORTEST_PAUSE), _LONGEST_PAUSE)


def _seen(reap: Reap, *, is_there: bool, at: Instant) -> Outcome:
    """How a session ended, or the statement that was to be cancelled."""
    if is_there:
        return Outcome(result=Result.CANCELLED, at=at)
    result = Result.TERMINATED if reap.action is Action.TERMINATE else Result.GONE
    return Outcome(result=result, at=at)


def _may_lock_meanwhile(reap: Reap) -> bool:
    """A running statement may take an advisory lock and look unchanged; an idle session cannot."""
    return reap.session.state == ACTIVE and NEEDS_LOCKS not in reap.policy.despite


def _asked_first(reap: Reap) -> bool:
    """Whether the guard does not see everything that the decision relied on."""
    return reap.policy.match.blocking or _may_lock_meanwhile(reap)


def _answered(answer: Sequence[Row] | psycopg.Error | Lost) -> Outcome:
    if isinstance(answer, Exception):
        return _failed(answer)
    ((looked, sent, signalled),) = answer
    at = as_instant(signalled)
    if sent is None:
        detail = "the server came to it too late: nobody waits so long for its answer"
        return Outcome(result=Result.WITHDRAWN, detail=detail, at=at)
    if not as_flag(sent):
        return Outcome(result=Result.GONE, detail="it left at the moment of the signal", at=at)
    return Outcome(result=Result.SIGNALLED, at=at, act=Act(as_instant(looked), at))


def _flights(reaps: Sequence[Reap]) -> Iterator[Sequence[Reap]]:
    """Those who can be under way together, for nothing is to be asked just before any of them."""
    for asked_first, each in groupby(reaps, key=_asked_first):
        together = list(each)
        yield from ([reap] for reap in together) if asked_first else [together]


def _failed(error: Exception) -> Outcome:
    refused = isinstance(error, errors.InsufficientPrivilege)
    return Outcome(result=Result.DENIED if refused else Result.UNKNOWN, detail=sentence(error))
