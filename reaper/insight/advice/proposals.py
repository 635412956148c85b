"""Policies that fit the evidence, each with its reasons and as a dry run."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from reaper.insight.advice.evidence import ApplicationSessions, Evidence
from reaper.insight.advice.finding import about, round_span
from reaper.insight.advice.known_tools import is_console, is_monitoring
from reaper.insight.advice.leaks import is_suspect
from reaper.insight.advice.timeouts import IDLE_WAITS, TRANSACTION_WAITS, TimeLimit, limit_above
from reaper.policy.poolers import pooler
from reaper.policy.rules import DEFAULT_BRAKE
from reaper.policy.session import ABORTED, IDLE, IN_TRANSACTION, Session
from reaper.policy.text import counted
from reaper.policy.time import Span, parse_span

_MAX_POLICIES: Final = 20
_MAX_NAMES: Final = 100
_MAX_SLUG: Final = 40
_FORGOTTEN: Final = 30
"""Times the transaction limit: half an hour by default."""
_BLOCKING: Final = 2
_LAST_SLOTS: Final = "90%"
_LONGEST: Final = parse_span("14d")
_WAITING: Final = (IN_TRANSACTION, ABORTED)
_Kind = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A policy that fits the evidence; its names are exact, not globs."""

    name: str
    description: str
    why: tuple[str, ...]
    states: tuple[str, ...]
    idle_for: Span
    role: str | None = None
    application: str | None = None
    blocking: bool = False
    roles: tuple[str, ...] = ()
    """One of these roles."""
    used: str = ""
    """The share of slots in use from which on it acts; empty is always."""
    allowlist: tuple[str, ...] = ()
    """Applications that it skips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """The contents of a starting policy file."""

    policies: tuple[Proposal, ...]
    protected: tuple[str, ...]
    """Applications that no policy touches."""
    poolers: tuple[str, ...]
    """Application names of poolers in the evidence; they are protected without an entry."""


def proposals(evidence: Evidence) -> Proposals:
    """Return a policy for each leak and each application with forgotten transactions, and general ones."""
    names = [each.id.name for each in evidence.applications]
    return Proposals(
        policies=tuple(_numbered(_policies(evidence))),
        protected=_distinct(name for name in names if is_monitoring(name)),
        poolers=_distinct(name for name in names if pooler(name)),
    )


def _policies(evidence: Evidence) -> Iterator[Proposal]:
    named = [each for each in evidence.ordinary if each.id.role and not each.superuser]
    for each in [each for each in named if is_suspect(each)][:_MAX_POLICIES]:
        if limit := limit_above(each.idle_waits, least=evidence.idle_limit, what=IDLE_WAITS):
            why = (
                f"{len(each.long_idle):,} of {counted(each.count, 'session')} idle for more than "
                f"{about(evidence.idle_limit)}, and {each.needless:,} opened while others were idle."
            )
            kind: _Kind = ("leak", "Connections that were opened and forgotten", (IDLE,))
            yield _for_application(each, kind, why, each.long_idle, limit, evidence)
    for each in [each for each in named if each.forgotten][:_MAX_POLICIES]:
        if limit := limit_above(each.transaction_waits, least=each.transaction_limit, what=TRANSACTION_WAITS):
            why = (
                f"{counted(len(each.forgotten), 'session')} idle in a transaction for more than "
                f"{about(each.transaction_limit)}."
            )
            kind = ("in-transaction", "Transactions that were started and forgotten", _WAITING)
            yield _for_application(each, kind, why, each.forgotten, limit, evidence)
    yield from _blocking(evidence)
    yield from _last_slots(evidence)
    yield _forgotten_transactions(evidence)


def _for_application(
    application: ApplicationSessions,
    kind: _Kind,
    why: str,
    sessions: Iterable[Session],
    limit: TimeLimit,
    evidence: Evidence,
) -> Proposal:
    name, description, states = kind
    slug = re.sub(r"[^a-z0-9]+", "-", application.id.name.lower()).strip("-")[:_MAX_SLUG].strip("-")
    return Proposal(
        name=f"{name}-{slug or 'unnamed'}",
        description=description,
        why=(
            f"{application.id.title}: {why}",
            f"idle_for: {limit.because}.",
            *_matches_now(sessions, limit.span, evidence),
        ),
        states=states,
        idle_for=limit.span,
        role=application.id.role,
        application=application.id.name,
    )


def _blocking(evidence: Evidence) -> Iterator[Proposal]:
    if any((evidence.last.facts.waiters or {}).values()):
        yield Proposal(
            name="transactions-in-the-way",
            description="Idle transactions that other sessions wait for",
            why=("Sessions waited for others when this file was written.",),
            states=_WAITING,
            idle_for=round_span(evidence.transaction_limit * _BLOCKING) or _LONGEST,
            blocking=True,
        )


def _last_slots(evidence: Evidence) -> Iterator[Proposal]:
    """For the emergency, if the slots were nearly all in use."""
    idle = [each for each in evidence.ordinary if each.long_idle and each.id.role and not each.superuser]
    if not evidence.is_scarce or not idle:
        return
    sessions = [session for each in idle for session in each.long_idle]
    limit = round_span(evidence.idle_limit) or _LONGEST
    yield Proposal(
        name="last-slots",
        description="Sessions that have been idle for long, the longest first, while hardly any slot is left",
        why=(
            (
                f"{evidence.peak:,} of {evidence.usable:,} slots were in use, {len(sessions):,} of them by "
                f"sessions idle for {about(evidence.idle_limit)} and more."
            ),
            *_matches_now(sessions, limit, evidence),
        ),
        states=(IDLE,),
        idle_for=limit,
        roles=_distinct(each.id.role for each in idle),
        allowlist=_consoles(evidence),
        used=_LAST_SLOTS,
    )


def _forgotten_transactions(evidence: Evidence) -> Proposal:
    longest = max((each.transaction_waits.longest for each in evidence.applications), default=Span(0))
    limit = round_span(max(evidence.transaction_limit * _FORGOTTEN, longest * 3)) or _LONGEST
    consoles = _consoles(evidence)
    why = (
        f"the longest wait in a transaction that ended was {about(longest)}; this is far above it"
        if longest
        else f"no wait in a transaction ended in this time; {about(limit)} is a guess"
    )
    skipped = ["Consoles are on the allowlist: people take long to think."] if consoles else []
    return Proposal(
        name="forgotten-transactions",
        description="Transactions of any role that have waited for their client for very long",
        why=(f"idle_for: {why}.", *skipped),
        states=_WAITING,
        idle_for=limit,
        allowlist=consoles,
    )


def _consoles(evidence: Evidence) -> tuple[str, ...]:
    return _distinct(each.id.name for each in evidence.applications if is_console(each.id.name))


def _matches_now(sessions: Iterable[Session], limit: Span, evidence: Evidence) -> Iterator[str]:
    due = len(evidence.lasting(sessions, limit))
    yield f"When this file was written it would have matched {counted(due, 'session')}."
    if DEFAULT_BRAKE.trips(due, evidence.last.clients):
        yield (
            f"That is more than {DEFAULT_BRAKE.share:.0%} of all client sessions: the safety limit will stop "
            "this policy until you raise the share, for example `safety_limit: {share: 90%}`."
        )


def _numbered(found: Iterable[Proposal]) -> Iterator[Proposal]:
    """Each under a different name."""
    taken = set[str]()
    for each in found:
        name, number = each.name, 1
        while name in taken:
            number += 1
            name = f"{each.name}-{number}"
        taken.add(name)
        yield replace(each, name=name)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))[:_MAX_NAMES]
