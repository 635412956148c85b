"""Policies that fit what was seen: who is meant, from when on, and why; each of them a rehearsal."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from reaper.insight.advice.evidence import Crowd, Evidence, is_console, is_monitoring
from reaper.insight.advice.finding import about, many, percent, round_span, who
from reaper.insight.advice.known_tools import ordinary
from reaper.insight.advice.leaks import is_suspect
from reaper.insight.advice.slots import SCARCE
from reaper.insight.advice.timeouts import IDLE_WAITS, PAUSES, Limit, limit_above
from reaper.policy.poolers import pooler
from reaper.policy.rules import DEFAULT_BRAKE
from reaper.policy.session import ABORTED, IDLE, IN_TRANSACTION, Session
from reaper.policy.time import Span, parse_span, since

_MOST: Final = 20
_MOST_NAMES: Final = 100
_LONGEST_SLUG: Final = 40
_FORGOTTEN: Final = 30
"""Times what is long inside a transaction: half an hour, as it is by default."""
_IN_THE_WAY: Final = 2
_LAST: Final = "90%"
_LONGEST: Final = parse_span("14d")
IN_TRANSACTIONS: Final = (IN_TRANSACTION, ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A policy that fits what was seen."""

    name: str
    description: str
    why: tuple[str, ...]
    states: tuple[str, ...]
    idle_for: Span
    role: str | None = None
    """Exactly this name, as the application; None is anybody."""
    application: str | None = None
    blocking: bool = False
    roles: tuple[str, ...] = ()
    """Any of exactly these names."""
    used: str = ""
    """The share of used slots from which on it acts; nothing is always."""
    spares: tuple[str, ...] = ()
    """Applications of exactly these names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """What a starting policy file holds."""

    policies: tuple[Proposal, ...]
    protected: tuple[str, ...]
    """Applications of exactly these names, whom no policy touches."""
    poolers: tuple[str, ...]
    """Seen, and protected anyway."""


def proposals(evidence: Evidence) -> Proposals:
    """A policy for each suspect, and one for what is forgotten in transactions by whomever."""
    names = [crowd.key.application for crowd in evidence.crowds]
    return Proposals(
        policies=tuple(_numbered(_policies(evidence))),
        protected=_some(name for name in names if is_monitoring(name)),
        poolers=_some(name for name in names if pooler(name)),
    )


def _policies(evidence: Evidence) -> Iterator[Proposal]:
    named = [crowd for crowd in ordinary(evidence) if crowd.key.role and not crowd.superuser]
    for crowd in [crowd for crowd in named if is_suspect(crowd)][:_MOST]:
        if limit := limit_above(crowd.revived, least=evidence.quiet, what=IDLE_WAITS):
            yield _leak(crowd, limit, evidence)
    for crowd in [crowd for crowd in named if crowd.forgotten][:_MOST]:
        if limit := limit_above(crowd.pauses, least=crowd.patience, what=PAUSES):
            yield _in_transaction(crowd, limit, evidence)
    yield from _anybody(evidence)


def _leak(crowd: Crowd, limit: Limit, evidence: Evidence) -> Proposal:
    due = _due(crowd.quiet, limit.span, evidence)
    return Proposal(
        name=f"leak-{_slug(crowd)}",
        description="Connections that were opened and forgotten",
        why=(
            (
                f"{who(crowd.key)}: {len(crowd.quiet):,} of {many(crowd.count, 'session')} idle for more "
                f"than {about(evidence.quiet)}, and {crowd.in_vain:,} opened while others lay idle."
            ),
            f"idle_for: {limit.because}.",
            *_now(due, evidence),
        ),
        states=(IDLE,),
        idle_for=limit.span,
        role=crowd.key.role,
        application=crowd.key.application,
    )


def _in_transaction(crowd: Crowd, limit: Limit, evidence: Evidence) -> Proposal:
    due = _due(crowd.forgotten, limit.span, evidence)
    return Proposal(
        name=f"in-transaction-{_slug(crowd)}",
        description="Transactions that were begun and forgotten",
        why=(
            (
                f"{who(crowd.key)}: {many(len(crowd.forgotten), 'session')} idle in a transaction for "
                f"more than {about(crowd.patience)}."
            ),
            f"idle_for: {limit.because}.",
            *_now(due, evidence),
        ),
        states=IN_TRANSACTIONS,
        idle_for=limit.span,
        role=crowd.key.role,
        application=crowd.key.application,
    )


def _anybody(evidence: Evidence) -> Iterator[Proposal]:
    """For those whom nobody suspects now."""
    patience = Span(evidence.quiet // 10)
    if any((evidence.last.facts.waiters or {}).values()):
        yield Proposal(
            name="transactions-in-the-way",
            description="Transactions that do nothing while others wait for them",
            why=("Sessions waited for others when this was written.",),
            states=IN_TRANSACTIONS,
            idle_for=round_span(patience * _IN_THE_WAY) or _LONGEST,
            blocking=True,
        )
    yield from _last_slots(evidence)
    longest = max((crowd.pauses.longest for crowd in evidence.crowds), default=Span(0))
    consoles = _consoles(evidence)
    limit = round_span(max(patience * _FORGOTTEN, longest * 3)) or _LONGEST
    seen = (
        f"the longest wait in a transaction that ended was {about(longest)}; this is far above it"
        if longest
        else f"no wait in a transaction was seen to end; {about(limit)} is a guess"
    )
    yield Proposal(
        name="forgotten-transactions",
        description="Transactions of anybody that have waited for their client for very long",
        why=(
            f"idle_for: {seen}.",
            *(["The consoles that were seen are spared: people think long."] if consoles else []),
        ),
        states=IN_TRANSACTIONS,
        idle_for=limit,
        spares=consoles,
    )


def _last_slots(evidence: Evidence) -> Iterator[Proposal]:
    """For the emergency, where it has come to one or nearly."""
    idle = [crowd for crowd in ordinary(evidence) if crowd.quiet and crowd.key.role and not crowd.superuser]
    if evidence.pressure < SCARCE or not idle:
        return
    due = sum(len(crowd.quiet) for crowd in idle)
    limit = round_span(evidence.quiet) or _LONGEST
    yield Proposal(
        name="last-slots",
        description="Whatever has been idle for long, the longest first, while hardly a slot is left",
        why=(
            (
                f"{evidence.peak:,} of {evidence.usable:,} slots were in use, {due:,} of them by sessions "
                f"idle for {about(evidence.quiet)} and more."
            ),
            *_now(_due([s for crowd in idle for s in crowd.quiet], limit, evidence), evidence),
        ),
        states=(IDLE,),
        idle_for=limit,
        roles=_some(crowd.key.role for crowd in idle),
        spares=_consoles(evidence),
        used=_LAST,
    )


def _consoles(evidence: Evidence) -> tuple[str, ...]:
    return _some(crowd.key.application for crowd in evidence.crowds if is_console(crowd.key.application))


def _due(sessions: Iterable[Session], limit: Span, evidence: Evidence) -> int:
    ages = (since(session.state_change, evidence.last.at) for session in sessions)
    return sum(age is not None and age >= limit for age in ages)


def _now(due: int, evidence: Evidence) -> Iterator[str]:
    """How many it would mean at once, and whether its brake would let it."""
    yield f"When this was written it would have meant {many(due, 'session')}."
    if DEFAULT_BRAKE.trips(due, evidence.last.clients):
        yield (
            f"That is more than {percent(DEFAULT_BRAKE.share)} of all clients: its brake will hold it "
            "back until you raise the share, for example `safety_limit: {share: 90%}`."
        )


def _slug(crowd: Crowd) -> str:
    """What a policy's name may hold of an application's."""
    plain = re.sub(r"[^a-z0-9]+", "-", crowd.key.application.lower()).strip("-")
    return plain[:_LONGEST_SLUG].strip("-") or "unnamed"


def _numbered(found: Iterable[Proposal]) -> Iterator[Proposal]:
    """Each under a name of its own."""
    taken = set[str]()
    for each in found:
        name, number = each.name, 1
        while name in taken:
            number += 1
            name = f"{each.name}-{number}"
        taken.add(name)
        yield replace(each, name=name)


def _some(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))[:_MOST_NAMES]
