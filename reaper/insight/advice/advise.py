"""All findings, the most urgent first, and what could not be told."""

from collections.abc import Callable, Iterator
from typing import Final

from reaper.insight.advice.clients import dead_clients, monitoring, orphaned_statements
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Finding, Urgency, many
from reaper.insight.advice.known_tools import ordinary
from reaper.insight.advice.leaks import is_suspect, leaks
from reaper.insight.advice.pools import busy_pools, large_pools, pool_sizes, transaction_pooling
from reaper.insight.advice.roles import connection_limits, names, near_limits, superusers
from reaper.insight.advice.slots import kept_for_roles, kept_for_superusers, raising, slots
from reaper.insight.advice.timeouts import IDLE_SESSION, SINCE
from reaper.insight.advice.transactions import (
    blockers,
    idle_in_transaction,
    idle_slots,
    long_transactions,
    prepared_transactions,
    vacuum,
)

FAMILIES: Final[tuple[Callable[[Evidence], Iterator[Finding]], ...]] = (
    slots,
    blockers,
    near_limits,
    leaks,
    idle_in_transaction,
    vacuum,
    prepared_transactions,
    idle_slots,
    kept_for_superusers,
    connection_limits,
    large_pools,
    busy_pools,
    pool_sizes,
    transaction_pooling,
    raising,
    monitoring,
    superusers,
    names,
    long_transactions,
    dead_clients,
    orphaned_statements,
    kept_for_roles,
)
"""In the order in which findings of one urgency are told."""

_ORDER: Final = tuple(Urgency)


def advise(evidence: Evidence) -> tuple[Finding, ...]:
    """Every finding, the most urgent first."""
    told = [
        (_ORDER.index(found.urgency), rank, -found.weight, number, found)
        for rank, family in enumerate(FAMILIES)
        for number, found in enumerate(family(evidence))
    ]
    return tuple(found for *_, found in sorted(told, key=lambda each: each[:4]))


def untold(evidence: Evidence) -> Iterator[str]:
    """What nobody should believe to have been looked at."""
    last, ground = evidence.last, evidence.ground
    if last.unreadable:
        hidden = many(last.unreadable, "session hides", "sessions hide")
        yield f"{hidden} what they do: GRANT pg_read_all_stats to the role that looks"
    if evidence.looks == 1:
        yield "one look shows no growth, no churn, and nobody who came back to life"
    if ground is None:
        yield "settings, limits of roles, replication slots, prepared transactions: the server alone has them"
    elif "tcp_keepalives_idle" not in ground.settings:
        yield "keepalives: through the server's own socket they cannot be read"
    if ground and ground.standby:
        yield "a standby takes no ALTER ROLE: say it at the primary, and it holds for both"
    if ground and ground.major < SINCE[IDLE_SESSION] and any(map(is_suspect, ordinary(evidence))):
        yield f"{IDLE_SESSION} came with PostgreSQL {SINCE[IDLE_SESSION]}; this is {ground.major}"
    if last.facts.waiters is None:
        yield "who waits for whom"
    if evidence.uncounted:
        yield f"{evidence.uncounted:,} sessions under more names than are told apart"
