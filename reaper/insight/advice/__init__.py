"""Advice about the connections of one server: findings with their numbers, and fixes.

The law of this package: it is pure, it applies nothing and it guesses nothing. A finding counts what was
observed, says how certain that makes it, and the report names what was not observed.
Its face: the names below, `evidence`, `finding`, `server_facts` and `proposals`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from reaper.insight.advice import clients, pools, slots, transactions
from reaper.insight.advice.collector import EvidenceCollector
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Finding, Urgency
from reaper.insight.advice.timeouts import IDLE_SESSION
from reaper.policy.text import counted

__all__ = ["EvidenceCollector", "advise", "not_observed"]

# In the order in which findings of one urgency are reported; each check yields its largest first.
_CHECKS: Final[tuple[Callable[[Evidence], Iterator[Finding]], ...]] = (
    *(slots.slots, transactions.blockers, slots.near_limits, pools.leaks, transactions.idle_in_transaction),
    *(transactions.vacuum, transactions.prepared_transactions, transactions.unused_slots),
    *(slots.connection_limits, pools.large_pools, pools.busy_pools, pools.pool_sizes),
    *(pools.transaction_pooling, slots.more_slots, clients.monitoring, clients.superusers, clients.names),
    *(transactions.long_transactions, clients.dead_clients, clients.orphaned_statements, slots.reserved),
)


def advise(evidence: Evidence) -> tuple[Finding, ...]:
    """Return every finding, the most urgent first."""
    found = [each for check in _CHECKS for each in check(evidence)]
    return tuple(sorted(found, key=lambda each: tuple(Urgency).index(each.urgency)))


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
    if facts and facts.major < IDLE_SESSION.since and any(map(pools.is_suspect, evidence.ordinary)):
        yield f"{IDLE_SESSION.name} exists from PostgreSQL {IDLE_SESSION.since} on; this is {facts.major}"
    if last.facts.waiters is None:
        yield "sessions that wait for locks of other sessions: only the server reports them"
    if evidence.untracked:
        yield f"{evidence.untracked:,} sessions: there are more applications than are counted separately"
