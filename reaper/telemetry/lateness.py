"""How late a session was ended: its end minus its deadline, where the reaper alone was to blame.

Left out: who was overdue before we looked or before these rules were in force, whom a restraint or a rest of
the policy (pace, brake, keep, cap, when, during) held back at the last look, and policies that ask for more
than ages, for which no deadline is known beforehand.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from reaper.policy.plan import Plan
from reaper.policy.session import SessionId
from reaper.policy.spans import Instant, Span, seconds
from reaper.policy.verdict import Outcome, Reap, Result, Spared

_ENDED: Final = {Result.TERMINATED, Result.CANCELLED}


def lateness(
    settled: Iterable[tuple[Reap, Outcome]], *, before: Plan | None, watched_since: Instant | None
) -> Iterator[float]:
    """The seconds of each session that was ended; `before` is the plan of the cycle before."""
    if before is None or watched_since is None:
        return
    held: frozenset[SessionId] | None = None
    for reap, outcome in settled:
        due = _deadline(reap)
        if outcome.result not in _ENDED or outcome.at is None or due is None or due < watched_since:
            continue
        held = _held_back(before) if held is None else held
        if reap.session.id not in held:
            yield max(seconds(Span(outcome.at - due)), 0.0)


def _deadline(reap: Reap) -> Instant | None:
    match = reap.policy.match
    asks_for_more = match.blocking or match.holds_back_vacuum is not None
    return None if asks_for_more else match.due(reap.session)


def _held_back(plan: Plan) -> frozenset[SessionId]:
    return frozenset(
        spare.session.id for spare in plan.matched_spares if spare.by is not Spared.FIRST_SIGHTING
    )
