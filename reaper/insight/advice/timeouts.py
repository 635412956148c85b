"""The server's own timeouts for a role, chosen by how long its sessions were observed to wait."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from reaper.insight.advice.evidence import ApplicationSessions, DurationHistogram, Evidence, Period, lasting
from reaper.insight.advice.finding import Fix, about, identifier, round_span, setting
from reaper.policy.protections import pooler
from reaper.policy.text import counted, percent
from reaper.policy.time import Duration


class Timeout(NamedTuple):
    """One of the server's timeouts, its first major version, and the periods that it limits."""

    name: str
    since: int
    period: Period

    def settable(self, role: str, evidence: Evidence) -> bool:
        """Return True if the server has this timeout and no session of the role begins with one now."""
        facts = evidence.facts
        if facts is None or facts.major < self.since or identifier(role) is None:
            return False
        databases = {database for each in evidence.of_role(role) for database in each.databases}
        return all(facts.limit(self.name, role, database) == 0 for database in databases)

    def set_for(self, role: str, span: Duration) -> str:
        """Return the statement that sets it for a role."""
        return f"ALTER ROLE {identifier(role)} SET {self.name} = '{setting(span)}';"


IDLE_SESSION: Final = Timeout("idle_session_timeout", 14, Period.IDLE)
IDLE_IN_TRANSACTION: Final = Timeout("idle_in_transaction_session_timeout", 13, Period.IN_TRANSACTION)
TRANSACTION: Final = Timeout("transaction_timeout", 17, Period.TRANSACTION)

# With fewer periods a percentile has no meaning.
_ENOUGH: Final = 20
_USUAL: Final = 0.99
_MARGIN: Final = 3
_WIDE_MARGIN: Final = 10


class TimeLimit(NamedTuple):
    """A time limit that none of the observed periods exceeds, and the reason for it."""

    span: Duration
    enough: bool
    """True if enough periods ended for a limit that can be relied on."""
    because: str


def limit_above(
    period: Period, applications: Iterable[ApplicationSessions], least: Duration
) -> TimeLimit | None:
    """Return a round limit well above the periods that ended; None if none is round enough."""
    waits = DurationHistogram.merged(each.ended[period] for each in applications)
    ended = f"{counted(waits.count, period)} ended in this time"
    if waits.count < _ENOUGH:
        # Few periods prove little: the limit has to be far above the longest.
        span = round_span(max(least * _MARGIN, waits.longest * _WIDE_MARGIN))
        few = f"only {ended}, the longest after {about(waits.longest)}"
        because = f"{few if waits.count else f'no {period} ended in this time'}: any limit is a guess"
    else:
        usual = waits.percentile(_USUAL)
        span = round_span(max(least, usual * _MARGIN, waits.longest))
        within = f"{percent(_USUAL)} of them within {about(usual)}"
        because = f"{ended}, {within}, the longest after {about(waits.longest)}"
    return TimeLimit(span, waits.count >= _ENOUGH, because) if span else None


def idle_session_fix(application: ApplicationSessions, evidence: Evidence) -> Iterator[Fix]:
    """`idle_session_timeout` for the role, unless that would harm other sessions of the role."""
    role = application.id.role
    if not IDLE_SESSION.settable(role, evidence):
        return
    if any(pooler(each.id.name) for each in evidence.of_role(role)):
        yield Fix(f"do not set {IDLE_SESSION.name}: a pooler of this role would lose its connections")
        return
    limit = limit_above(Period.IDLE, evidence.of_role(role), evidence.idle_limit)
    if limit is None or not lasting(limit.span, application.long_idle, evidence.last.at):
        return
    others = sum(each.count for each in evidence.of_role(role)) - application.count
    shared = f", also to {counted(others, 'session')} of other applications" if others else ""
    yield Fix(
        f"or let the server terminate sessions that are idle for {about(limit.span)} (new sessions only)",
        sql=IDLE_SESSION.set_for(role, limit.span),
        cost=f"applies to all sessions of the role{shared}; a pool must test a connection before use, or it "
        f"gets error 57P05; not for use behind a pooler; {limit.because}",
    )
