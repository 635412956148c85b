"""What a census says, in words, for terminals and pages alike; names are still as clients wrote them."""

from collections.abc import Iterator
from typing import Final

from reaper.insight.usage.census import Openings, Transaction
from reaper.policy.poolers import Pooler
from reaper.policy.session import LOCAL
from reaper.policy.time import SECOND, Span, words

_UNNAMED: Final = "(unnamed)"


def ago(seconds: float | None) -> str:
    """`12m31s`; nothing when it is not known."""
    return "" if seconds is None else words(Span(round(seconds * SECOND)))


def openings_words(openings: Openings) -> Iterator[str]:
    """Sentences about the free slots; the last one is about an administrator."""
    yield (
        f"{openings.used} of {openings.total} slots used; {openings.for_anybody} free for anybody, "
        f"{openings.reserved} kept back."
    )
    yield _admin(openings)


def _admin(openings: Openings) -> str:
    reserved, superusers = openings.for_reserved, openings.for_superusers
    if not superusers:
        return "Not even a superuser gets in now: end a session from the server's host."
    if not openings.full:
        return "Everybody gets in, unless a limit of their own role or database is reached."
    also = f", and a role with pg_use_reserved_connections: {reserved} left" if reserved else ""
    return f"Ordinary roles are refused. A superuser still gets in: {_slots(superusers)} left{also}."


def waiting_words(transaction: Transaction) -> str:
    """`3 wait for it: web-1 (pid 12), ...`; None if no session waits."""
    if not transaction.waiting:
        return ""
    named = [f"{each.session.application or _UNNAMED} (pid {each.pid})" for each in transaction.waiters]
    more = transaction.waiting - len(named)
    told = ", ".join(named) + (f" and {more} more" if named and more > 0 else "")
    count = transaction.waiting
    return f"{count} {'waits' if count == 1 else 'wait'} for it" + (f": {told}" if told else "")


def horizon(transaction: Transaction) -> str:
    """How far it holds vacuum back; nothing when it holds back next to nothing."""
    age = transaction.xid_age or 0
    if age <= 1:
        return ""
    return f"holds vacuum back by {age:,} transactions"


def pooler_words(pooler: Pooler) -> str:
    """What there probably is, and what tells so."""
    where = pooler.client or LOCAL
    if pooler.kind:
        return f"Probably {pooler.kind}: {_sessions(pooler.count)} from {where}, by the name they give."
    names = f"under {pooler.applications} names" if pooler.applications != 1 else "under one name"
    return f"Probably a pooler, or one large pool: {_sessions(pooler.count)} from {where}, {names}."


def _sessions(count: int) -> str:
    return f"{count} session{'s' if count != 1 else ''}"


def _slots(count: int) -> str:
    return f"{count} slot{'s' if count != 1 else ''}"
