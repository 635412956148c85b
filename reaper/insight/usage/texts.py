"""Sentences about a census, for terminals and pages alike; names are still as clients wrote them."""

from collections.abc import Iterator

from reaper.insight.usage.census import Openings, ProbablePooler, Transaction
from reaper.policy.session import LOCAL
from reaper.policy.text import counted, percent
from reaper.policy.time import SECOND, Duration, words


def ago(seconds: float | None) -> str:
    """Return `12m31s`; an empty text if it is unknown."""
    return "" if seconds is None else words(Duration(round(seconds * SECOND)))


def openings_words(openings: Openings) -> Iterator[str]:
    """Return the number of free slots, and which roles can still connect."""
    yield (
        f"{openings.used} of {openings.usable} usable slots used ({percent(openings.share)}): "
        f"{openings.for_anybody} free, {openings.reserved} more reserved."
    )
    reserved, superusers = openings.for_reserved, openings.for_superusers
    if not openings.full:
        yield "New connections are accepted (role and database limits may still apply)."
    elif not superusers:
        yield "All roles are refused, also superusers: terminate a session from the server's host."
    else:
        also = f", {reserved} of them for pg_use_reserved_connections" if reserved else ""
        yield f"Ordinary roles are refused. Superusers can use {counted(superusers, 'more slot')}{also}."


def waiting_words(transaction: Transaction) -> str:
    """Return `3 sessions wait for it: web-1 (pid 12), ...`; an empty text if none waits."""
    if not transaction.waiting:
        return ""
    named = [f"{each.session.application or '(unnamed)'} (pid {each.pid})" for each in transaction.waiters]
    more = transaction.waiting - len(named)
    names = ", ".join(named) + (f" and {more} more" if named and more > 0 else "")
    waiting = counted(transaction.waiting, "session waits for it", "sessions wait for it")
    return f"{waiting}: {names}" if names else waiting


def horizon(transaction: Transaction) -> str:
    """Return how far it delays vacuum; an empty text if that is not noticeable."""
    age = transaction.xid_age or 0
    return f"delays vacuum by {age:,} transactions" if age > 1 else ""


def pooler_words(pooler: ProbablePooler) -> str:
    """Return the probable kind of pooler, and the reason for that."""
    sessions = f"{counted(pooler.count, 'session')} from {pooler.client or LOCAL}"
    if pooler.kind:
        return f"Probably {pooler.kind}, by its application name: {sessions}."
    return f"Probably a pooler or a large pool: {sessions}, with {counted(pooler.applications, 'name')}."
