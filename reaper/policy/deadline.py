"""When the next session becomes due."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from reaper.policy.plan import unknown
from reaper.policy.protections import NEEDS_LOCKS, first_protection
from reaper.policy.rules import Policy, Rules
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import Duration, Timestamp, seconds

_MOMENTS: Final = 100


def next_due(snapshot: Snapshot, rules: Rules) -> Timestamp | None:
    """The earliest moment after this snapshot at which a policy could match a session of it."""
    earliest: Timestamp | None = None
    for session in snapshot.sessions:
        policies, soonest, _ = rules.matching(session)
        if not policies or session.state_change is None:
            continue
        if earliest is not None and session.state_change + soonest >= earliest:
            continue  # it cannot be the first, whatever each policy says
        if unknown(session):
            continue
        for policy in policies:
            due = policy.match.due(session)
            if due is not None and due > snapshot.at and (earliest is None or due < earliest):
                earliest = due
    return earliest


def rest_after(snapshot: Snapshot, rules: Rules, *, interval: Duration, precision: Duration) -> Duration:
    """The pause until the next session becomes due or the interval ends, and at least the precision."""
    due = next_due(snapshot, rules)
    if due is None:
        return interval
    return Duration(min(max(due - snapshot.at, precision), interval))


def shared_moment(due: float, *, interval: Duration) -> float:
    """Round the time of a regular cycle down to a hundredth of the interval.

    So servers that are due at about the same time are observed together: to wake up costs more than a
    snapshot.
    """
    return due - due % (seconds(interval) / _MOMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The time at which a policy matches a session if that does not change."""

    session: Session
    policy: Policy
    at: Timestamp


def soonest(snapshot: Snapshot, rules: Rules, *, most: int) -> tuple[Due, ...]:
    """The next sessions that will become due, each once, without those that are due already.

    Protected and allowlisted sessions are left out. Holders of advisory locks may be included: that is not
    read for this list.
    """
    return tuple(islice(_by_time(snapshot, rules), most))


def _by_time(snapshot: Snapshot, rules: Rules) -> Iterator[Due]:
    queue = [
        (due, number, rank)
        for number, session in enumerate(snapshot.sessions)
        if not unknown(session)
        for rank, policy in enumerate(rules.matching(session).policies)
        if (due := policy.match.due(session)) is not None and due > snapshot.at
    ]
    heapq.heapify(queue)
    taken = set[int]()
    while queue:
        due, number, rank = heapq.heappop(queue)
        session = snapshot.sessions[number]
        matching = rules.matching(session)
        policy = matching.policies[rank]
        overrides = policy.overrides | {NEEDS_LOCKS}
        if number in taken or policy.name in matching.allowed:
            continue
        if not first_protection(session, snapshot, rules.protect, overrides):
            taken.add(number)
            yield Due(session=session, policy=policy, at=due)
