"""When the next session falls due."""

from reaper.policy.decide import unknown
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.policy.spans import Instant, Span


def next_due(snapshot: Snapshot, rules: Rules) -> Instant | None:
    """The earliest moment after this snapshot at which any session now seen could fall under a policy."""
    earliest: Instant | None = None
    for session in snapshot.sessions:
        if unknown(session) or session.state_change is None:
            continue
        policies, soonest, _ = rules.meaning(session)
        if earliest is not None and session.state_change + soonest >= earliest:
            continue  # without asking each policy: it would not be the first
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
