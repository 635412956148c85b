"""Terminating and cancelling: one guarded statement per session, never retried, its outcome confirmed.

The statements run one after the other, each in a transaction of its own: inside a transaction or a pipeline
pg_stat_activity does not change any more, and the guard would check the past.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8

from reaper.policy.plan import Act, Candidate, Outcome, Result
from reaper.policy.protections import NEEDS_LOCKS, SYNC_REPLICATION
from reaper.policy.rules import Action
from reaper.policy.session import ACTIVE, SessionId
from reaper.policy.time import SECOND, Duration, Timestamp, as_datetime
from reaper.postgres.connection import Connection
from reaper.postgres.errors import Refused, ServerError, sentence
from reaper.postgres.sql import statement

_GUARD: Final = statement("guard")
GUARDS: Final = {
    Action.TERMINATE: _GUARD.replace("{signal}", "pg_terminate_backend"),
    Action.CANCEL: _GUARD.replace("{signal}", "pg_cancel_backend"),
}
_STILL_THERE: Final = statement("still_there")
_STILL_ACTIVE: Final = statement("still_active")
_BLOCKS_OTHERS: Final = statement("blocks_others")
_HOLDS_ADVISORY_LOCK: Final = statement("holds_advisory_lock")
_MAX_INT4: Final = 2**31 - 1
_MAX_SPAN: Final = 999_999_999 * 86_400 * SECOND
_MIN_PAUSE: Final = 0.001
"""Half of all backends have exited after this time."""
_MAX_PAUSE: Final = 0.1
_PATIENCE: Final = 2.0
"""A backend that exits later than this after the one before it is stuck."""
_MAX_PATIENCE: Final = 10.0
_VALID_FOR: Final = 15 * SECOND
"""The connection's watchdog gives up sooner; a server that resumes later must not act on an old decision."""

Settled = Sequence[tuple[Candidate, Outcome]]


class GuardedTerminator:
    """Terminates and cancels on the connection that observes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def terminate(self, candidate: Candidate, *, answered_at: Timestamp) -> Outcome:
        """Check the session again and signal it; SIGNALLED has still to be confirmed.

        `answered_at` is the time of the server's last answer by its own clock. An error is an outcome, never
        a reason to try again: the server may have acted before the answer was lost.
        """
        if self._connection.lost:
            return Outcome(result=Result.WITHDRAWN, detail="the connection was lost before the signal")
        try:
            if changed := await self._changed(candidate):
                return await self._missed(candidate, changed)
            rows = await self._connection.rows(
                GUARDS[candidate.action], guard_parameters(candidate, answered_at)
            )
            if not rows:
                return await self._missed(candidate, "it changed before the signal")
        except (ServerError, psycopg.Error) as error:
            return _failed(error)
        ((checked, sent, signalled),) = rows
        return _answered(checked, signalled, sent=sent)

    async def _changed(self, candidate: Candidate) -> str | None:
        """The change that the guard cannot see; None if there is none."""
        if candidate.policy.match.blocking and not await self._holds(_BLOCKS_OTHERS, candidate):
            return "no other session waits for it any more"
        # A running statement may take an advisory lock without a visible change; an idle session cannot.
        may_lock = candidate.session.state == ACTIVE and NEEDS_LOCKS not in candidate.policy.overrides
        if may_lock and await self._holds(_HOLDS_ADVISORY_LOCK, candidate):
            return "it has taken an advisory lock"
        return None

    async def confirm(self, candidates: Sequence[Candidate]) -> AsyncIterator[Settled]:
        """Yield the signalled sessions as they exit, at last those that are still there."""
        waiting = {candidate.session.id: candidate for candidate in candidates}
        now = asyncio.get_running_loop().time
        began = progressed = now()
        pause = _MIN_PAUSE
        while waiting and now() < min(progressed + _PATIENCE, began + _MAX_PATIENCE):
            await asyncio.sleep(pause)
            try:
                # In this order: a session that exits in between counts as gone, not as cancelled.
                ended = await self._ended_statements(list(waiting.values()))
                present, at = await self._present(list(waiting.values()))
            except (ServerError, psycopg.Error) as error:
                detail = f"signalled, then {sentence(error)}"
                yield [
                    (candidate, Outcome(result=Result.UNKNOWN, detail=detail))
                    for candidate in waiting.values()
                ]
                return
            settled = [
                (candidate, _confirmed(candidate, is_present=one in present, at=at))
                for one, candidate in waiting.items()
                if one not in present or one in ended
            ]
            pause = next_pause(pause, gone=len(settled), left=len(waiting) - len(settled))
            if settled:
                progressed = now()
                for candidate, _ in settled:
                    del waiting[candidate.session.id]
                yield settled
        # A backend in uninterruptible I/O ignores the signal; it may still exit later.
        detail = f"signalled, and still there {now() - began:.0f}s later"
        yield [(candidate, Outcome(result=Result.SIGNALLED, detail=detail)) for candidate in waiting.values()]

    async def _holds(self, query: str, candidate: Candidate) -> bool:
        ((holds,),) = await self._connection.rows(query, {"pid": candidate.session.id.pid})
        return bool(holds)

    async def _missed(self, candidate: Candidate, changed: str) -> Outcome:
        """The outcome of a session that is no longer as it was: it exited or it changed."""
        present, now = await self._present([candidate])
        if candidate.session.id in present:
            return Outcome(result=Result.CHANGED, detail=changed, at=now)
        return Outcome(result=Result.GONE, detail="it had already exited", at=now)

    async def _present(self, candidates: Sequence[Candidate]) -> tuple[AbstractSet[SessionId], Timestamp]:
        """The sessions of these that are still there, and the time of that answer."""
        rows = await self._connection.rows(
            _STILL_THERE, {"pids": [candidate.session.id.pid for candidate in candidates]}
        )
        if any(pid is not None and began is None for pid, began, _ in rows):
            # A row that hides its start must not pass for a session that has exited.
            message = (
                "the reaper has lost pg_read_all_stats and cannot see whether the session is still there"
            )
            raise Refused(message)
        return {SessionId(pid, began) for pid, began, _ in rows if pid is not None}, rows[0][-1]

    async def _ended_statements(self, candidates: Sequence[Candidate]) -> AbstractSet[SessionId]:
        """The sessions of which the cancelled statement has ended."""
        cancelled = [candidate for candidate in candidates if candidate.action is Action.CANCEL]
        if not cancelled:
            return frozenset()
        rows = await self._connection.rows(
            _STILL_ACTIVE, {"pids": [candidate.session.id.pid for candidate in cancelled]}
        )
        running = {SessionId(pid, began): (state, query_start) for pid, began, state, query_start in rows}
        return {
            candidate.session.id
            for candidate in cancelled
            if running.get(candidate.session.id) != (ACTIVE, candidate.session.query_start)
        }


class DryRunTerminator:
    """The terminator of a dry run: nothing is signalled."""

    async def terminate(self, candidate: Candidate, *, answered_at: Timestamp) -> Outcome:  # noqa: ARG002
        """The outcome that says what would be done."""
        return Outcome(result=Result.DRY_RUN, detail=f"dry run: would {candidate.action}")

    async def confirm(self, candidates: Sequence[Candidate]) -> AsyncIterator[Settled]:
        """Nothing was signalled, so there is nothing to confirm."""
        yield [(candidate, Outcome(result=Result.DRY_RUN)) for candidate in candidates]


def guard_parameters(candidate: Candidate, answered_at: Timestamp) -> Mapping[str, object]:
    """The state on which the decision relied: guard.sql signals only if it is unchanged."""
    session, match = candidate.session, candidate.policy.match
    age = match.xmin_age
    return {
        "pid": session.id.pid,
        "kind": session.kind,
        "backend_start": _moment(session.id.backend_start),
        # int8 is cast to oid whatever its size; int4 would be negative for the upper half.
        "role_oid": None if session.role_oid is None else Int8(session.role_oid),
        "state": session.state,
        "state_change": _moment(session.state_change),
        "query_start": _moment(session.query_start),
        "xact_start": _moment(session.xact_start),
        "idle_for": _interval(match.idle_for),
        "transaction_for": _interval(match.transaction_for),
        "connected_for": _interval(match.connected_for),
        "running_for": _interval(match.running_for),
        "xmin_age": None if age is None else min(age, _MAX_INT4),
        "sync_aside": SYNC_REPLICATION in candidate.policy.overrides,
        "not_after": _moment(Timestamp(answered_at + _VALID_FOR)),
    }


def next_pause(last: float, *, gone: int, left: int) -> float:
    """The seconds until the rest should have exited, at the rate of the last pause."""
    # A query takes CPU from the backends that are exiting; a pause that is too long delays the outcome.
    expected = last * left / gone if gone else 2 * last
    return min(max(expected, _MIN_PAUSE), _MAX_PAUSE)


def _moment(instant: Timestamp | None) -> object:
    return None if instant is None else as_datetime(instant)


def _interval(span: Duration | None) -> timedelta | None:
    return None if span is None else timedelta(microseconds=min(span, _MAX_SPAN))


def _answered(checked: Timestamp, signalled: Timestamp, *, sent: bool | None) -> Outcome:
    if sent is None:
        detail = "the statement ran more than 15 s after the decision: nothing was signalled"
        return Outcome(result=Result.WITHDRAWN, detail=detail, at=signalled)
    if not sent:
        return Outcome(result=Result.GONE, detail="it exited at the moment of the signal", at=signalled)
    return Outcome(result=Result.SIGNALLED, at=signalled, act=Act(checked, signalled))


def _confirmed(candidate: Candidate, *, is_present: bool, at: Timestamp) -> Outcome:
    """The outcome of a session that has exited, or of which the statement has ended."""
    if is_present:
        return Outcome(result=Result.CANCELLED, at=at)
    result = Result.TERMINATED if candidate.action is Action.TERMINATE else Result.GONE
    return Outcome(result=result, at=at)


def _failed(error: Exception) -> Outcome:
    # 42501 is the only error after which it is certain that nothing was signalled.
    denied = isinstance(error, errors.InsufficientPrivilege)
    return Outcome(result=Result.DENIED if denied else Result.UNKNOWN, detail=sentence(error))
