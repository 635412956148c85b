"""Advice about the connections of one server: findings with their numbers, and fixes.

The law of this package: it is pure, it applies nothing and it guesses nothing. A finding counts what was
observed, says how certain that makes it, and the report names what was not observed.
Its face: the names below, `evidence`, `finding`, `server_facts` and `proposals`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from reaper.insight.advice.clients import dead_clients, monitoring, names, orphaned_statements, superusers
from reaper.insight.advice.collector import EvidenceCollector
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Finding, Urgency
from reaper.insight.advice.pools import (
    busy_pools,
    is_suspect,
    large_pools,
    leaks,
    pool_sizes,
    transaction_pooling,
)
from reaper.insight.advice.slots import connection_limits, more_slots, near_limits, reserved, slots
from reaper.insight.advice.timeouts import IDLE_SESSION
from reaper.insight.advice.transactions import (
    blockers,
    idle_in_transaction,
    long_transactions,
    prepared_transactions,
    unused_slots,
    vacuum,
)
from reaper.policy.text import counted

__all__ = ["EvidenceCollector", "advise", "not_observed"]

# In the order in which findings of one urgency are reported; each check yields its largest first.
_CHECKS: Final[tuple[Callable[[Evidence], Iterator[Finding]], ...]] = (
    *(slots, blockers, near_limits, leaks, idle_in_transaction, vacuum, prepared_transactions, unused_slots),
    *(connection_limits, large_pools, busy_pools, pool_sizes, transaction_pooling, more_slots, monitoring),
    *(superusers, names, long_transactions, dead_clients, orphaned_statements, reserved),
)
_ORDER: Final = tuple(Urgency)


def advise(evidence: Evidence) -> tuple[Finding, ...]:
    """Return every finding, the most urgent first."""
    found = [each for check in _CHECKS for each in check(evidence)]
    return tuple(sorted(found, key=lambda each: _ORDER.index(each.urgency)))


def not_observed(evidence: Evidence) -> Iterator[str]:
    """Return what the findings do not cover, each in a sentence."""
    last, facts = evidence.last, evidence.facts
    if last.unreadable:
        hidden = counted(last.unreadable, "session hides its state", "sessions hide their state")
        yield f"{hidden}: GRANT pg_read_all_stats to the role of this command"
    if evidence.snapshots == 1:
        yield "growth and sessions that are used again: one snapshot cannot show them"
    if facts is None:
        yield "settings, role limits, replication slots, prepared transactions: only the server reports them"
    elif "tcp_keepalives_idle" not in facts.settings:
        yield "keepalives: they cannot be read over the server's own socket"
    if facts and facts.standby:
        yield "this is a standby: run ALTER ROLE on the primary, and it applies to both"
    if facts and facts.major < IDLE_SESSION.since and any(map(is_suspect, evidence.ordinary)):
        yield f"{IDLE_SESSION.name} exists from PostgreSQL {IDLE_SESSION.since} on; this is {facts.major}"
    if last.facts.waiters is None:
        yield "sessions that wait for locks of other sessions: only the server reports them"
    if evidence.untracked:
        yield f"{evidence.untracked:,} sessions: there are more applications than are counted separately"
