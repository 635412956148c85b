"""When the next session falls due."""

from reaper.policy.decide import unknown
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.policy.spans import Instant, Span


def next_due(snapshot: Snapshot, rules: Rules) -> Instant | None:
    """The earliest moment after this snapshot at which any session now seen could fall under a policy."""
    moments = (
        due
        for session in snapshot.sessions
        if not unknown(session)
        for policy in rules.selecting(session.identity)
        if (due := policy.match.due(session)) is not None and due > snapshot.at
    )
    return min(moments, default=None)


def rest_after(snapshot: Snapshot, rules: Rules, *, interval: Span, precision: Span) -> Span:
    """How long to rest: until the next session falls due or the interval ends, and at least the precision."""
    due = next_due(snapshot, rules)
    if due is None:
        return interval
    return Span(min(max(due - snapshot.at, precision), interval))
