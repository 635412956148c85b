"""Policies that fit the evidence, each with its reasons and as a dry run."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reaper.insight.advice.evidence import WAITING_STATES, ApplicationSessions, Evidence, Period, lasting
from reaper.insight.advice.finding import about, round_span
from reaper.insight.advice.known_tools import is_console, is_monitoring
from reaper.insight.advice.pools import is_suspect
from reaper.insight.advice.timeouts import TimeLimit, limit_above
from reaper.policy.protections import pooler
from reaper.policy.rules import DEFAULT_SAFETY_LIMIT
from reaper.policy.session import IDLE, Session
from reaper.policy.text import counted, percent
from reaper.policy.time import Duration, parse_duration

_MAX_POLICIES: Final = 20
_MAX_NAMES: Final = 100
_MAX_SLUG: Final = 40
_FORGOTTEN: Final = 30
"""Times the transaction limit: half an hour by default."""
_BLOCKING: Final = 2
_LONGEST: Final = parse_duration("14d")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy that fits the evidence; its names are exact, not globs."""

    name: str
    description: str
    why: tuple[str, ...]
    states: tuple[str, ...]
    idle_for: Duration
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
    for each in [each for each in _with_role(evidence) if is_suspect(each)][:_MAX_POLICIES]:
        if limit := limit_above(Period.IDLE, [each], evidence.idle_limit):
            needless = f"{each.needless:,} opened while others were idle"
            idle = f"{len(each.long_idle):,} of {counted(each.count, 'session')} idle"
            why = f"{idle} for more than {about(evidence.idle_limit)}, and {needless}."
            kind = Proposal("leak", "Forgotten connections", (why,), (IDLE,), limit.span)
            yield _for_application(each, kind, each.long_idle, limit, evidence)
    for each in [each for each in _with_role(evidence) if each.forgotten][:_MAX_POLICIES]:
        least = evidence.transaction_limit
        if limit := limit_above(Period.IN_TRANSACTION, [each], least):
            idle = f"{counted(len(each.forgotten), 'session')} idle in a transaction"
            why = f"{idle} for more than {about(least)}."
            kind = Proposal(
                "in-transaction",
                "Transactions that were started and forgotten",
                (why,),
                WAITING_STATES,
                limit.span,
            )
            yield _for_application(each, kind, each.forgotten, limit, evidence)
    yield from _blocking(evidence)
    yield from _last_slots(evidence)
    yield _forgotten_transactions(evidence)


def _for_application(
    each: ApplicationSessions, kind: Proposal, idle: Sequence[Session], limit: TimeLimit, evidence: Evidence
) -> Proposal:
    slug = re.sub(r"[^a-z0-9]+", "-", each.id.name.lower()).strip("-")[:_MAX_SLUG].strip("-")
    matches = _matches_now(idle, limit.span, evidence)
    why = (f"{each.id.title}: {kind.why[0]}", f"idle_for: {limit.because}.", *matches)
    name = f"{kind.name}-{slug or 'unnamed'}"
    return replace(kind, name=name, why=why, role=each.id.role, application=each.id.name)


def _with_role(evidence: Evidence) -> list[ApplicationSessions]:
    return [each for each in evidence.ordinary if each.id.role and not each.superuser]


def _blocking(evidence: Evidence) -> Iterator[Proposal]:
    if any((evidence.last.facts.waiters or {}).values()):
        yield Proposal(
            name="blocking-transactions",
            description="Idle transactions that other sessions wait for",
            why=("Sessions waited for others when this file was written.",),
            states=WAITING_STATES,
            idle_for=round_span(evidence.transaction_limit * _BLOCKING) or _LONGEST,
            blocking=True,
        )


def _last_slots(evidence: Evidence) -> Iterator[Proposal]:
    """For the emergency, if the slots were nearly all in use."""
    idle = [each for each in _with_role(evidence) if each.long_idle]
    if not evidence.is_scarce or not idle:
        return
    sessions = [session for each in idle for session in each.long_idle]
    limit = round_span(evidence.idle_limit) or _LONGEST
    in_use = f"{evidence.peak:,} of {evidence.usable:,} slots were in use"
    long = f"{len(sessions):,} of them by sessions idle for {about(evidence.idle_limit)} and more"
    yield Proposal(
        name="last-slots",
        description="Sessions that have been idle for long, the longest first, while hardly any slot is free",
        why=(f"{in_use}, {long}.", *_matches_now(sessions, limit, evidence)),
        states=(IDLE,),
        idle_for=limit,
        roles=_distinct(each.id.role for each in idle),
        allowlist=_consoles(evidence),
        used="90%",
    )


def _forgotten_transactions(evidence: Evidence) -> Proposal:
    ended = [each.ended[Period.IN_TRANSACTION].longest for each in evidence.applications]
    longest = max(ended, default=Duration(0))
    limit = round_span(max(evidence.transaction_limit * _FORGOTTEN, longest * 3)) or _LONGEST
    consoles = _consoles(evidence)
    why = f"no wait in a transaction ended in this time; {about(limit)} is a guess"
    if longest:
        why = f"the longest wait in a transaction that ended was {about(longest)}; this is far above it"
    skipped = ["Consoles are on the allowlist: a person may wait long between two statements."]
    return Proposal(
        name="forgotten-transactions",
        description="Transactions of any role that have waited for their client for very long",
        why=(f"idle_for: {why}.", *(skipped if consoles else [])),
        states=WAITING_STATES,
        idle_for=limit,
        allowlist=consoles,
    )


def _consoles(evidence: Evidence) -> tuple[str, ...]:
    return _distinct(each.id.name for each in evidence.applications if is_console(each.id.name))


def _matches_now(sessions: Iterable[Session], limit: Duration, evidence: Evidence) -> Iterator[str]:
    due = len(lasting(limit, sessions, evidence.last.at))
    yield f"When this file was written it would have matched {counted(due, 'session')}."
    if DEFAULT_SAFETY_LIMIT.trips(due, evidence.last.clients):
        yield (
            f"That is more than {percent(DEFAULT_SAFETY_LIMIT.share)} of all client sessions: the safety "
            "limit will stop this policy until you raise the share, for example `safety_limit: {share: 90%}`."
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
