"""Pools: which are too large, which are busy, and how large all may be so that they fit into the slots."""

import math
from collections.abc import Iterator
from typing import Final

from reaper.insight.advice.evidence import Crowd, Evidence
from reaper.insight.advice.finding import (
    Cure,
    Finding,
    Sure,
    Urgency,
    about,
    lately,
    listed,
    many,
    percent,
    short,
    watched,
    who,
)
from reaper.insight.advice.known_tools import ordinary, poolers
from reaper.insight.advice.leaks import FEWEST, MOSTLY, is_suspect
from reaper.insight.advice.slots import SCARCE
from reaper.policy.time import SECOND, Span

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


_LARGE: Final = 0.1
"""Of the slots: a pool that keeps fewer idle than this harms nobody as long as there are slots."""
_BUSY: Final = 0.25
_TO_SHARE: Final = 0.9
"""Of the slots; the rest is for people, jobs and what was not seen."""
_TIGHT: Final = 0.7
_POOLS_SMALLEST: Final = 2
_MOST: Final = 5


def large_pools(evidence: Evidence) -> Iterator[Finding]:
    """Pools that keep many more connections than they use."""
    found = _large(evidence)
    if not found:
        return
    scarce = evidence.pressure >= SCARCE
    yield Finding(
        topic="large pool",
        urgency=Urgency.SOON if scarce else Urgency.WORTH,
        sure=Sure.LIKELY if evidence.is_long else Sure.POSSIBLE,
        says=(
            f"{who(found[0].key)} keeps more connections than it uses"
            if len(found) == 1
            else f"{many(len(found), 'application')} keep more connections than they use"
        ),
        evidence=tuple(_too_many(found, evidence)),
        cures=(
            Cure(
                does="smaller pools, which give back what is idle",
                setting="\n".join(_line(each, _needs(each)) for each in found[:_MOST]),
                costs="at a peak that was not seen, callers wait in the pool instead of on the server",
            ),
        ),
        role=found[0].key.role if len(found) == 1 else None,
        application=found[0].key.application if len(found) == 1 else None,
        weight=sum(len(each.quiet) for each in found),
    )


def _large(evidence: Evidence) -> list[Crowd]:
    scarce = evidence.pressure >= SCARCE
    fewest = max(FEWEST, 0 if scarce else evidence.usable * _LARGE)
    found = [
        crowd
        for crowd in ordinary(evidence)
        if len(crowd.quiet) >= fewest
        and len(crowd.quiet) >= crowd.count * MOSTLY
        and not is_suspect(crowd)
        and _needs(crowd) < max(crowd.instances.values())
    ]
    return sorted(found, key=lambda each: -len(each.quiet))


def _needs(crowd: Crowd) -> int:
    """What an instance seems to need: a quarter more than was used lately, or at work at once."""
    used = max(crowd.count - len(crowd.quiet), crowd.working)
    return max(-(-(used + used // 4) // len(crowd.instances)), _POOLS_SMALLEST)


def _too_many(found: list[Crowd], evidence: Evidence) -> Iterator[str]:
    for each in found[:_MOST]:
        yield (
            f"{short(each.key)}: {len(each.quiet):,} of {many(each.count, 'session')} idle for more than "
            f"{about(evidence.quiet)}, {each.count - len(each.quiet):,} used since"
        )
    if len(found) > _MOST:
        yield f"and {many(len(found) - _MOST, 'more application')} of the kind"
    grown = sum(each.opened - each.closed for each in found)
    if evidence.looks > 1:
        sign = "" if grown > 0 or any(each.in_vain for each in found) else ": no sign of a leak"
        more = many(grown, "session") if grown > 0 else "no session"
        yield f"{lately(evidence)} {more} more{sign}"
    if not evidence.is_long:
        yield f"judged by the last {about(evidence.quiet)}: look over a peak, best in a history (`--history`)"


def busy_pools(evidence: Evidence) -> Iterator[Finding]:
    """Where slots are scarce: who holds many of them, and does use them."""
    if evidence.pressure < SCARCE or evidence.looks == 1:
        return
    for crowd in ordinary(evidence):
        if crowd.count < evidence.usable * _BUSY or crowd.used < crowd.count * MOSTLY:
            continue
        yield Finding(
            topic="busy pool",
            urgency=Urgency.WORTH,
            sure=Sure.COUNTED,
            says=f"{who(crowd.key)} holds many slots and uses them: that is load, and no leak",
            evidence=(
                f"{crowd.used:,} of its {many(crowd.count, 'session')} did something {lately(evidence)}",
                f"at one look {crowd.working:,} were at work or in a transaction at the most",
            ),
            cures=(
                Cure(
                    does=(
                        "share connections out: a pooler in transaction mode, or smaller pools whose "
                        "callers wait"
                    ),
                    costs="ending these sessions helps nobody",
                ),
            ),
            role=crowd.key.role,
            application=crowd.key.application,
            weight=crowd.count,
        )


def pool_sizes(evidence: Evidence) -> Iterator[Finding]:
    """Where pools are used and slots are tight: a maximum for each instance, so that all of them fit."""
    crowds = [each for each in ordinary(evidence) if each.count >= _POOLS_SMALLEST]
    others = evidence.last.slots.used - sum(crowd.count for crowd in crowds)
    to_share = int(evidence.usable * _TO_SHARE) - others
    could = sum(max(each.instances.values()) * (len(each.instances) + 1) for each in crowds)
    tight = evidence.pressure >= _TIGHT and could > to_share >= len(crowds)
    if not (crowds and tight) or _large(evidence) or any(map(is_suspect, crowds)):
        return  # others are the cause, and nobody should make a good pool smaller for them
    every = sum(each.count for each in crowds)
    held = [f"{short(each.key)} {each.count:,} from {len(each.instances):,}" for each in crowds]
    lines = [_line(each, int(to_share * each.count / every / (len(each.instances) + 1))) for each in crowds]
    yield Finding(
        topic="pool sizes",
        urgency=Urgency.WORTH,
        sure=Sure.POSSIBLE,
        says="one instance more of each application, as during a release, does not fit into the slots",
        evidence=(
            (
                f"{many(len(crowds), 'application')} could hold {could:,} with one instance more each: "
                f"{listed(held)}"
            ),
            (
                f"{evidence.usable:,} slots, {percent(1 - _TO_SHARE)} of them kept back and {others:,} used "
                f"by others, leave {to_share:,}"
            ),
            "an instance is a client address here: several behind one address look like one",
        ),
        cures=(
            Cure(
                does=(
                    "a maximum for the pool of each instance, by what they hold now, so that one more of "
                    "each fits"
                ),
                setting="\n".join(lines[:_MOST]),
                costs="callers wait in the pool when it is used up; measure that wait before you go lower",
            ),
        ),
        weight=every,
    )


def _line(crowd: Crowd, size: int) -> str:
    largest = max(crowd.instances.values())
    instances = many(len(crowd.instances), "instance")
    return (
        f"{short(crowd.key)}: at most {max(min(size, largest), 1):,} for each of {instances} (now up to "
        f"{largest:,})"
    )
