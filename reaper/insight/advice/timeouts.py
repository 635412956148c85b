"""The server's own timeouts for a role, by how long its sessions were really seen to wait."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from reaper.insight.advice.evidence import Ages, Crowd, Evidence
from reaper.insight.advice.finding import Cure, about, identifier, many, percent, round_span, setting
from reaper.insight.advice.known_tools import poolers
from reaper.policy.session import Session
from reaper.policy.time import Span, since

IDLE_SESSION: Final = "idle_session_timeout"
IDLE_IN_TRANSACTION: Final = "idle_in_transaction_session_timeout"
TRANSACTION: Final = "transaction_timeout"
SINCE: Final = {IDLE_IN_TRANSACTION: 13, IDLE_SESSION: 14, TRANSACTION: 17}
"""The major versions that they came with, as far as we support older ones."""

ENOUGH: Final = 20
"""With fewer waits a percentile says nothing."""
_MOST_OF_THEM: Final = 0.99
_MARGIN: Final = 3
_WIDE_MARGIN: Final = 10


class Waits(NamedTuple):
    """What is waited for, in words."""

    one: str
    several: str


IDLE_WAITS: Final = Waits("idle wait", "idle waits")
PAUSES: Final = Waits("wait in a transaction", "waits in a transaction")
TRANSACTIONS: Final = Waits("transaction", "transactions")


class Limit(NamedTuple):
    """A limit that those who came back would have kept, and why we believe it."""

    span: Span
    enough: bool
    because: str


def limit_above(waits: Ages, *, least: Span, what: Waits) -> Limit | None:
    """A round limit well above how long those waited that went on; nothing when none is round enough."""
    if waits.count < ENOUGH:
        # As far above the longest as it must be that a few say little.
        span = round_span(max(least * _MARGIN, waits.longest * _WIDE_MARGIN))
        seen = (
            f"only {many(waits.count, *what)} ended while we looked, the longest after {about(waits.longest)}"
        )
        because = f"{seen if waits.count else f'no {what.one} ended while we looked'}: too little to be sure"
    else:
        usual = waits.percentile(_MOST_OF_THEM)
        span = round_span(max(least, usual * _MARGIN, waits.longest))
        because = (
            f"{many(waits.count, *what)} ended while we looked, {percent(_MOST_OF_THEM)} of them within "
            f"{about(usual)}, the longest after {about(waits.longest)}"
        )
    return Limit(span, waits.count >= ENOUGH, because) if span else None


def settable(name: str, role: str, evidence: Evidence) -> bool:
    """Whether the server has that timeout, and no session of this role now begins with one."""
    ground = evidence.ground
    if ground is None or ground.major < SINCE[name] or identifier(role) is None:
        return False
    databases = {base for crowd in evidence.crowds if crowd.key.role == role for base in crowd.databases}
    return all(ground.limit(name, role, base) == 0 for base in databases)


def set_for_role(role: str, name: str, span: Span) -> str:
    """The statement that gives a role such a timeout."""
    return f"ALTER ROLE {identifier(role)} SET {name} = '{setting(span)}';"


def idle_session_cure(crowd: Crowd, evidence: Evidence) -> Iterator[Cure]:
    """`idle_session_timeout` for the role, unless other sessions of the role would suffer from it."""
    role = crowd.key.role
    if not settable(IDLE_SESSION, role, evidence):
        return
    if any(each.key.role == role for each in poolers(evidence)):
        yield Cure(does=f"no {IDLE_SESSION} here: a pooler uses the role too, and would lose its connections")
        return
    waits = together(each.revived for each in evidence.crowds if each.key.role == role)
    limit = limit_above(waits, least=evidence.quiet, what=IDLE_WAITS)
    if limit is None or not would_end(crowd.quiet, limit.span, evidence):
        return
    others = sum(each.count for each in evidence.crowds if each.key.role == role) - crowd.count
    shared = f", {many(others, 'session')} of other applications among them" if others else ""
    yield Cure(
        does=(
            f"or let the server end what is idle for {about(limit.span)}, in sessions that begin from then on"
        ),
        sql=set_for_role(role, IDLE_SESSION, limit.span),
        costs=(
            f"it holds for all sessions of the role{shared}; a pool must test connections before use, or "
            f"meets 57P05; wrong behind a pooler; {limit.because}"
        ),
    )


def together(ages: Iterable[Ages]) -> Ages:
    """Several counts as one."""
    every = Ages()
    for each in ages:
        every.join(each)
    return every


def would_end(sessions: Iterable[Session], limit: Span, evidence: Evidence) -> bool:
    """Whether the limit would have ended any of them; otherwise it cures nothing."""
    ages = (since(session.state_change, evidence.last.at) for session in sessions)
    return any(age is not None and age >= limit for age in ages)
