"""Acting: one guarded statement a session, never retried, its outcome confirmed.

A dry run is the other terminator.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import errors

from reaper.policy.protections import NEEDS_LOCKS, SYNC_REPLICATION
from reaper.policy.rules import Action
from reaper.policy.session import ACTIVE, SessionId
from reaper.policy.spans import Instant, Span, as_datetime
from reaper.policy.verdict import Act, Outcome, Reap, Result
from reaper.postgres.errors import Refused, ServerError, sentence
from reaper.postgres.link import Link
from reaper.postgres.sql import statement

_GUARD: Final = statement("guard")
_SIGNALS: Final = {
    Action.TERMINATE: _GUARD.replace("{signal}", "pg_terminate_backend"),
    Action.CANCEL: _GUARD.replace("{signal}", "pg_cancel_backend"),
}
_STILL_THERE: Final = statement("still_there")
_HOLDS_UP_OTHERS: Final = statement("holds_up_others")
_HOLDS_ADVISORY_LOCK: Final = statement("holds_advisory_lock")
_PAUSES: Final = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, *(0.1 for _ in range(19)))
"""Half of all backends are gone after a millisecond; after two seconds it is something else."""


class GuardedTerminator:
    """Terminates and cancels, on the connection that observes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def signal(self, reap: Reap) -> Outcome:
        """Look again and signal in one statement; SIGNALLED is not the end, and wants to be confirmed.

        Whatever goes wrong here is an outcome, never a reason to try again.
        """
        if self._link.lost:
            return Outcome(result=Result.WITHDRAWN, detail="the connection was lost before")
        try:
            return await self._signal(reap)
        except errors.InsufficientPrivilege as refusal:
            return Outcome(result=Result.DENIED, detail=sentence(refusal))
        except (ServerError, psycopg.Error) as error:
            return Outcome(result=Result.UNKNOWN, detail=sentence(error))

    async def _signal(self, reap: Reap) -> Outcome:
        if reap.policy.match.blocking and not await self._holds(_HOLDS_UP_OTHERS, reap):
            return await self._missed(reap, "it no longer holds up anybody")
        if _may_lock_meanwhile(reap) and await self._holds(_HOLDS_ADVISORY_LOCK, reap):
            return await self._missed(reap, "it holds an advisory lock by now")
        answer = await self._link.rows(_SIGNALS[reap.action], _guarded(reap))
        if not answer:
            return await self._missed(reap, "it changed before the act")
        ((looked, sent, at),) = answer
        if not sent:
            return Outcome(result=Result.GONE, detail="it left at the moment of the signal", at=at)
        return Outcome(result=Result.SIGNALLED, at=at, act=Act(looked, at))

    async def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[tuple[Reap, Outcome]]:
        """Watch the signalled sessions go, each as soon as it is seen; then name those still there."""
        waiting = {reap.session.id: reap for reap in reaps}
        for pause in _PAUSES:
            if not waiting:
                return
            await asyncio.sleep(pause)
            try:
                present, now = await self._present(list(waiting))
            except (ServerError, psycopg.Error) as error:
                for reap in waiting.values():
                    yield reap, Outcome(result=Result.UNKNOWN, detail=f"signalled, then {sentence(error)}")
                return
            for who, reap in list(waiting.items()):
                if outcome := _seen(reap, present.get(who), now):
                    del waiting[who]
                    yield reap, outcome
        for reap in waiting.values():
            detail = f"signalled, and still there {sum(_PAUSES):.0f}s later"
            yield reap, Outcome(result=Result.SIGNALLED, detail=detail)

    async def _holds(self, question: str, reap: Reap) -> bool:
        ((holds,),) = await self._link.rows(question, {"pid": reap.session.id.pid})
        return bool(holds)

    async def _missed(self, reap: Reap, changed: str) -> Outcome:
        """Tell whether a session that is no longer as it was has left or has changed."""
        present, now = await self._present([reap.session.id])
        if reap.session.id in present:
            return Outcome(result=Result.WOKE, detail=changed, at=now)
        return Outcome(result=Result.GONE, detail="it had left by itself", at=now)

    async def _present(self, ids: Sequence[SessionId]) -> tuple[dict[SessionId, tuple[Any, ...]], Instant]:
        rows = await self._link.rows(_STILL_THERE, {"pids": [who.pid for who in ids]})
        if any(pid is not None and began is None for pid, began, *_ in rows):
            # A row that hides since when it is there must not pass for a session that has left.
            message = "the reaper may no longer see whether it is there: it has lost pg_read_all_stats"
            raise Refused(message)
        present = {SessionId(pid, began): (state, query_start) for pid, began, state, query_start, _ in rows}
        return present, rows[0][-1]


class Rehearsal:
    """A dry run: takes every decision, and touches nobody."""

    async def signal(self, reap: Reap) -> Outcome:
        """Say what would have been done."""
        return Outcome(result=Result.REHEARSED, detail=f"dry run: would {reap.action}")

    async def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[tuple[Reap, Outcome]]:
        """Nothing was signalled, nothing is to be confirmed."""
        for reap in reaps:
            yield reap, Outcome(result=Result.REHEARSED)


def _seen(reap: Reap, present: tuple[Any, ...] | None, now: Instant) -> Outcome | None:
    if present is None:
        result = Result.TERMINATED if reap.action is Action.TERMINATE else Result.GONE
        return Outcome(result=result, at=now)
    state, query_start = present
    if reap.action is Action.CANCEL and (state != ACTIVE or query_start != reap.session.query_start):
        return Outcome(result=Result.CANCELLED, at=now)
    return None


def _may_lock_meanwhile(reap: Reap) -> bool:
    """A running statement may take an advisory lock and look unchanged; an idle session cannot."""
    return reap.session.state == ACTIVE and NEEDS_LOCKS not in reap.policy.despite


def _guarded(reap: Reap) -> dict[str, object]:
    """Everything that the decision relied on, for the guard to find unchanged."""
    session, match = reap.session, reap.policy.match
    return {
        "pid": session.id.pid,
        "kind": session.kind,
        "backend_start": as_datetime(session.id.backend_start),
        "role_oid": session.role_oid,
        "state": session.state,
        "state_change": _moment(session.state_change),
        "query_start": _moment(session.query_start),
        "xact_start": _moment(session.xact_start),
        "idle_for": _interval(match.idle_for),
        "transaction_for": _interval(match.transaction_for),
        "connected_for": _interval(match.connected_for),
        "running_for": _interval(match.running_for),
        "holds_back_vacuum": match.holds_back_vacuum,
        "sync_aside": SYNC_REPLICATION in reap.policy.despite,
    }


def _moment(instant: Instant | None) -> datetime | None:
    return None if instant is None else as_datetime(instant)


def _interval(span: Span | None) -> timedelta | None:
    return None if span is None else timedelta(microseconds=span)
