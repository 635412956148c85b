"""Where a pooler in transaction mode would help: many clients that need a server only now and then."""

import math
from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.leaks import is_suspect
from reaper.policy.advice.ordinary import ordinary, poolers
from reaper.policy.advice.slots import SCARCE
from reaper.policy.advice.wording import listed, many, percent, watched
from reaper.policy.spans import SECOND, Span

_OFTEN: Final = 1.0
"""Connections a second: at a few milliseconds each that is noticeable."""
_FEWEST: Final = 20
_IDLE_SHARE: Final = 0.2
_CROWD: Final = 50
_SMALLEST: Final = 5


def transaction_pooling(evidence: Evidence) -> Iterator[Finding]:
    """Sessions that come and go all the time, or many of which hardly any is at work."""
    rate = _connections_a_second(evidence)
    churns = rate is not None and rate >= _OFTEN
    sits = (
        evidence.looks > 1
        and evidence.pressure >= SCARCE
        and evidence.peak >= _CROWD
        and evidence.working <= evidence.peak * _IDLE_SHARE
        # What is forgotten would be forgotten behind a pooler too.
        and not any(map(is_suspect, ordinary(evidence)))
    )
    if not (churns or sits):
        return
    shared = "put PgBouncer in transaction mode before the server"
    yield Finding(
        topic="pooler",
        urgency=Urgency.WORTH,
        sure=Sure.LIKELY if churns else Sure.POSSIBLE,
        says="clients connect anew all the time"
        if churns
        else "many sessions sit on slots, and few of them work",
        evidence=tuple(_evidence(evidence, rate if churns else None)),
        cures=(
            Cure(
                does=f"keep connections open in the applications' pools, or {shared}" if churns else shared,
                setting=(
                    f"pool_mode = transaction\ndefault_pool_size = {_pool_size(evidence)}"
                    "  ; for each database and role\nmax_prepared_statements = 200  ; from PgBouncer 1.21 on"
                ),
                costs="; ".join(_costs(evidence)),
            ),
        ),
        weight=evidence.peak,
    )


def _connections_a_second(evidence: Evidence) -> float | None:
    """As the server counts them, or else as far as looks show them; nothing for what is too few to say."""
    before, after = evidence.before, evidence.ground
    span, opened = evidence.span, evidence.opened
    if before and after and before.opened is not None and after.opened is not None:
        span, opened = Span(after.at - before.at), after.opened - before.opened
    return opened / (span / SECOND) if opened >= _FEWEST and span > 0 else None


def _evidence(evidence: Evidence, rate: float | None) -> Iterator[str]:
    if rate is not None:
        counted = evidence.ground is not None and evidence.ground.opened is not None
        how = "as the server counts them" if counted else "as far as looks show them, so rather more"
        yield f"{rate:.1f} connections a second, {how}; each costs the server a process"
        if evidence.brief:
            yield f"{many(evidence.brief, 'session')} came and went while we looked"
    share = percent(evidence.working / max(evidence.peak, 1))
    yield (
        f"of {many(evidence.peak, 'session')} {evidence.working:,} ({share}) were at work or in a "
        f"transaction at the most, {watched(evidence)}"
    )
    if names := sorted({crowd.key.application for crowd in poolers(evidence)}):
        yield f"there is a pooler already ({listed(list(map(repr, names)))}): some clients go past it"


def _pool_size(evidence: Evidence) -> int:
    """Half as many again as the busiest application needed at once."""
    busiest = max((crowd.working for crowd in ordinary(evidence)), default=0)
    return max(math.ceil(busiest * 1.5), _SMALLEST)


def _costs(evidence: Evidence) -> Iterator[str]:
    yield "it breaks what outlives a transaction: SET, temporary tables, WITH HOLD, LISTEN, session locks"
    listeners = sum(session.last_query_listens for session in evidence.last.sessions)
    holders = evidence.last.facts.advisory_lock_holders or frozenset()
    locked = sum(session.id.pid in holders for session in evidence.last.sessions)
    if listeners or locked:
        seen = [f"{many(listeners, 'listener')}"] if listeners else []
        seen += [f"{many(locked, 'holder')} of advisory locks"] if locked else []
        yield f"{' and '.join(seen)} seen now would have to go past it"
    yield "and it is one program more to look after"
