"""When the next session falls due."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from reaper.policy.plan import unknown
from reaper.policy.protections import NEEDS_LOCKS, shield
from reaper.policy.rules import Policy, Rules
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import Instant, Span, seconds

_MOMENTS: Final = 100


def next_due(snapshot: Snapshot, rules: Rules) -> Instant | None:
    """The earliest moment after this snapshot at which any session now seen could fall under a policy."""
    earliest: Instant | None = None
    for session in snapshot.sessions:
        policies, soonest, _ = rules.meaning(session)
        if not policies or session.state_change is None:
            continue
        if earliest is not None and session.state_change + soonest >= earliest:
            continue  # without asking each policy: it would not be the first
        if unknown(session):
            continue
        for policy in policies:
            due = policy.match.due(session)
            if due is not None and due > snapshot.at and (earliest is None or due < earliest):
                earliest = due
    return earliest


def rest_after(snapshot: Snapshot, rules: Rules, *, interval: Span, precision: Span) -> Span:
    """How long to rest: until the next session falls due or the interval ends, and at least the precision."""
    due = next_due(snapshot, rules)
    if due is None:
        return interval
    return Span(min(max(due - snapshot.at, precision), interval))


def shared_moment(due: float, *, interval: Span) -> float:
    """The last one, up to when it is due in seconds, at which a cycle begins that no deadline calls for.

    There are a hundred in an interval: servers that are due about now are looked at together, for to wake
    costs more than a look.
    """
    return due - due % (seconds(interval) / _MOMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A session that falls under a policy at that moment if it stays as it is."""

    session: Session
    policy: Policy
    at: Instant


def soonest(snapshot: Snapshot, rules: Rules, *, most: int) -> tuple[Due, ...]:
    """The next sessions that will become due, each once, without those that are due already.

    Protected and allowlisted sessions are left out. Holders of advisory locks may be included: that is not
    read for this list.
    """
    return tuple(islice(_in_turn(snapshot, rules), most))


def _in_turn(snapshot: Snapshot, rules: Rules) -> Iterator[Due]:
    queue = [
        (due, number, rank)
        for number, session in enumerate(snapshot.sessions)
        if not unknown(session)
        for rank, policy in enumerate(rules.meaning(session).policies)
        if (due := policy.match.due(session)) is not None and due > snapshot.at
    ]
    heapq.heapify(queue)
    taken = set[int]()
    while queue:
        due, number, rank = heapq.heappop(queue)
        session = snapshot.sessions[number]
        meant = rules.meaning(session)
        policy = meant.policies[rank]
        despite = policy.despite | {NEEDS_LOCKS}
        if number in taken or policy.name in meant.allowed:
            continue
        if not shield(session, snapshot, rules.protect, despite):
            taken.add(number)
            yield Due(session=session, policy=policy, at=due)
