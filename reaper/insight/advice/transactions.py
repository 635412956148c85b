"""Transactions that are idle, block others or delay vacuum; prepared ones; unused replication slots."""

from collections.abc import Iterator, Sequence
from typing import Final

from reaper.insight.advice.evidence import WAITING_STATES, ApplicationSessions, Evidence, Period, lasting
from reaper.insight.advice.finding import Confidence, Finding, Fix, Urgency, about, listed, literal
from reaper.insight.advice.timeouts import IDLE_IN_TRANSACTION, TRANSACTION, TimeLimit, limit_above
from reaper.policy.protections import is_backup_tool, is_managed, pooler
from reaper.policy.session import ABORTED, ACTIVE, LOCAL, Session
from reaper.policy.text import counted
from reaper.policy.time import Duration, isoformat

_FAR: Final = 1_000_000
"""Transactions: tables with many changes are noticeably larger by then."""
_LONG: Final = 6
"""Times the idle limit: an hour by default."""
_MAX_FINDINGS: Final = 5
_MB: Final = 1024 * 1024
_MUCH_LOG: Final = 1024 * _MB
"""Bytes of the write-ahead log: a standby catches up with less than that."""


def blockers(evidence: Evidence) -> Iterator[Finding]:
    """Each session that is idle in a transaction while other sessions wait for its locks."""
    waiters = evidence.last.facts.waiters or {}
    for session in _blocking(evidence):
        count, who = waiters[session.id.pid], (session.identity.role, session.identity.application)
        waiting = counted(count, "session waits", "sessions wait")
        title = f"{waiting} for pid {session.id.pid}, which is idle in a transaction"
        seen = [_described(session, evidence)]
        if session.xid_age is not None and session.xid_age >= _FAR:
            seen.append(f"it also delays vacuum by {session.xid_age:,} transactions")
        fixes, now = (_terminate(session),), Urgency.NOW
        yield Finding("blocking", now, Confidence.COUNTED, title, tuple(seen), fixes, *who)


def _blocking(evidence: Evidence) -> list[Session]:
    waiters = evidence.last.facts.waiters or {}
    idle = [each for each in _idle_in_transaction(evidence) if waiters.get(each.id.pid)]
    found = lasting(evidence.transaction_limit, idle, evidence.last.at)
    return sorted(found, key=lambda each: (-waiters[each.id.pid], each.id))[:_MAX_FINDINGS]


def _idle_in_transaction(evidence: Evidence) -> Iterator[Session]:
    return (each for each in evidence.last.sessions if each.state in WAITING_STATES)


def vacuum(evidence: Evidence) -> Iterator[Finding]:
    """The session that delays vacuum most, if it is idle in a transaction."""
    idle = _idle_in_transaction(evidence)
    held = [(age, each.id.pid, each) for each in idle if (age := each.xid_age or 0) >= _FAR]
    if not held or max(held)[2] in _blocking(evidence):
        return
    age, pid, session = max(held)
    title = f"pid {pid} is idle in a transaction and delays vacuum by {age:,} transactions"
    seen = [
        _described(session, evidence),
        "rows that were deleted or updated since then stay in their tables and indexes",
    ]
    if len(held) > 1:
        others = counted(len(held) - 1, "other session delays", "other sessions delay")
        seen.append(f"{others} vacuum too, by fewer transactions")
    urgency, fix, who = (
        Urgency.SOON,
        _terminate(session),
        (session.identity.role, session.identity.application),
    )
    if is_backup_tool(session.identity.application):
        urgency = Urgency.WORTH
        fix = Fix("it is a backup: let it finish; if it often delays vacuum, take it from a standby")
    yield Finding("vacuum", urgency, Confidence.COUNTED, title, tuple(seen), (fix,), *who)


def _described(session: Session, evidence: Evidence) -> str:
    identity, age = session.identity, evidence.age(session.state_change)
    named = f"application {identity.application!r}" if identity.application else "no application name"
    return (
        f"role {identity.role!r}, {named}, database {identity.database!r}, from {identity.client or LOCAL}: "
        f"{session.state} for {'an unknown time' if age is None else about(max(age, 0))}"
    )


def _terminate(session: Session) -> Fix:
    pid = session.id.pid
    started = literal(isoformat(session.id.backend_start) or "")
    chosen = f"pid = {pid} AND backend_start = {started} AND state = {literal(session.state or '')}"
    return Fix(
        "ask the owner of this session; if there is no answer, terminate it",
        # The pid is in the call too: a copy of only half of this line terminates no other session.
        sql=f"SELECT pg_terminate_backend({pid}) FROM pg_stat_activity WHERE {chosen};",  # noqa: S608
        cost="its transaction is rolled back, and its client gets an error",
    )


def idle_in_transaction(evidence: Evidence) -> Iterator[Finding]:
    """Roles with sessions that have been idle in a transaction long enough to be forgotten ones."""
    roles = [(role, found) for role, found in _by_role(evidence) if _forgotten(found)]
    roles.sort(key=lambda each: (-len(_forgotten(each[1])), each[0]))
    for role, found in roles[:_MAX_FINDINGS]:
        yield _forgotten_transactions(role, found, evidence)
    if rest := roles[_MAX_FINDINGS:]:
        more = counted(len(rest), "more role has", "more roles have")
        title = f"{more} transactions that seem to be forgotten"
        seen = f"roles {listed([repr(role) for role, _ in rest])}"
        yield Finding("idle in transaction", Urgency.WORTH, Confidence.POSSIBLE, title, (seen,))


def _forgotten_transactions(role: str, found: Sequence[ApplicationSessions], evidence: Evidence) -> Finding:
    forgotten, least = _forgotten(found), evidence.transaction_limit
    longest = evidence.longest(forgotten)
    limit = limit_above(Period.IN_TRANSACTION, found, least)
    names = sorted({each.id.name for each in found if each.forgotten})
    title = f"a transaction of role {role!r} seems to be forgotten"
    if len(forgotten) > 1:
        title = f"{len(forgotten):,} transactions of role {role!r} seem to be forgotten"
    where = listed([repr(name) if name else "a session without a name" for name in names])
    seen = (
        f"idle in transaction for more than {about(least)}, the longest for {about(longest)}, in {where}",
        _holds(forgotten),
        limit.because if limit else "other transactions waited longer than any useful limit",
    )
    urgency = Urgency.SOON if longest >= evidence.idle_limit else Urgency.WORTH
    confidence = Confidence.LIKELY if limit and limit.enough else Confidence.POSSIBLE
    fixes = tuple(_forgotten_fixes(role, forgotten, limit, evidence))
    who = (role, names[0] if len(names) == 1 else None)
    return Finding("idle in transaction", urgency, confidence, title, seen, fixes, *who)


def _holds(sessions: Sequence[Session]) -> str:
    if all(session.state == ABORTED for session in sessions):
        return "it has failed: it holds no locks, but its slot until the client ends it"
    delays = ", and delays vacuum" if any((session.xid_age or 0) > 1 for session in sessions) else ""
    return f"until it ends it holds its slot and its locks{delays}"


def _forgotten(found: Sequence[ApplicationSessions]) -> list[Session]:
    return [session for each in found for session in each.forgotten]


def _forgotten_fixes(
    role: str, forgotten: Sequence[Session], limit: TimeLimit | None, evidence: Evidence
) -> Iterator[Fix]:
    yield Fix("in the application: end a transaction before it waits for a person, a queue or an API")
    if limit is None or not IDLE_IN_TRANSACTION.settable(role, evidence):
        return
    if any(is_backup_tool(each.id.name) for each in evidence.of_role(role)):
        yield Fix(
            f"and use a separate role for backups; then {IDLE_IN_TRANSACTION.name} can be set for {role!r}",
            cost="now it would terminate them: the leader of a parallel pg_dump is idle in a transaction",
        )
    elif lasting(limit.span, forgotten, evidence.last.at):
        yield Fix(
            f"and let the server terminate such sessions after {about(limit.span)} (new sessions only)",
            sql=IDLE_IN_TRANSACTION.set_for(role, limit.span),
            cost="the transaction is rolled back and the client gets error 25P03; its pool reconnects",
        )


def long_transactions(evidence: Evidence) -> Iterator[Finding]:
    """Each role with transactions open for very long that are not idle: no other timeout ends them."""
    least = Duration(evidence.idle_limit * _LONG)
    for role, found in _by_role(evidence):
        running = [s for each in found for s in each.sessions if _works_for(s, least, evidence)]
        limit = limit_above(Period.TRANSACTION, found, least)
        if not running or limit is None or not TRANSACTION.settable(role, evidence):
            continue
        longest = max(evidence.age(session.xact_start) or 0 for session in running)
        have = "has" if len(running) == 1 else "have"
        running_for = f"{have} been working for more than {about(least)}"
        title = f"{counted(len(running), 'transaction')} of role {role!r} {running_for}"
        seen = (f"the longest for {about(longest)}; it delays vacuum", limit.because)
        fix = Fix(
            "only if no work of this role takes longer: let the server end such transactions",
            sql=TRANSACTION.set_for(role, limit.span),
            cost="reports, migrations and batch jobs that take longer are rolled back too",
        )
        yield Finding("long transaction", Urgency.WORTH, Confidence.POSSIBLE, title, seen, (fix,), role)


def _works_for(session: Session, least: Duration, evidence: Evidence) -> bool:
    open_for, in_state = evidence.age(session.xact_start), evidence.age(session.state_change)
    waits = in_state is None or in_state >= evidence.transaction_limit
    return open_for is not None and open_for >= least and not (session.state != ACTIVE and waits)


def _by_role(evidence: Evidence) -> list[tuple[str, list[ApplicationSessions]]]:
    """The applications of each role, without those that no timeout may end."""
    roles: dict[str, list[ApplicationSessions]] = {}
    for each in evidence.applications:
        if not (pooler(each.id.name) or is_backup_tool(each.id.name) or is_managed(each.id.role)):
            roles.setdefault(each.id.role, []).append(each)
    return sorted(roles.items())


def prepared_transactions(evidence: Evidence) -> Iterator[Finding]:
    """Prepared transactions that were neither committed nor rolled back."""
    prepared = evidence.facts.prepared if evidence.facts else ()
    old = [each for each in prepared if evidence.last.at - each.at >= evidence.idle_limit]
    if not old:
        return
    oldest = min(old, key=lambda each: each.at)
    delays = f"; it delays vacuum by {oldest.xid_age:,} transactions" if oldest.xid_age else ""
    waiting = counted(len(old), "prepared transaction waits", "prepared transactions wait")
    title, age = f"{waiting} for COMMIT or ROLLBACK", about(evidence.last.at - oldest.at)
    seen = (
        f"the oldest, {oldest.gid!r} of {oldest.owner!r} in {oldest.database!r}, for {age}{delays}",
        "it holds its locks and has no session, so no timeout and no policy ends it",
    )
    gid, owner = literal(oldest.gid), oldest.owner
    fix = Fix(
        f"find its outcome in its transaction manager; then, in database {oldest.database!r}",
        sql=f"ROLLBACK PREPARED {gid};",
        cost="if the other half was committed elsewhere, the two differ: then COMMIT PREPARED is right",
    )
    fixes = (fix,) if gid else ()
    yield Finding("prepared transactions", Urgency.SOON, Confidence.COUNTED, title, seen, fixes, owner)


def unused_slots(evidence: Evidence) -> Iterator[Finding]:
    """Replication slots without a consumer that delay vacuum or keep the write-ahead log."""
    for each in evidence.facts.idle_slots if evidence.facts else ():
        retained, xid_age, name = each.retained or 0, each.xid_age or 0, literal(each.name)
        if retained < _MUCH_LOG and xid_age < _FAR:
            continue
        title = f"the {each.kind} replication slot {each.name!r} has no consumer"
        retains = [f"it retains {retained / _MB:,.0f} MB of the write-ahead log"] if retained else []
        delays = [f"it delays vacuum by {xid_age:,} transactions"] if xid_age else []
        seen = (*retains, *delays, "this grows until the slot is used or dropped, or the disk is full")
        fix = Fix(
            "start its standby or subscriber again; if that no longer exists",
            sql=f"SELECT pg_drop_replication_slot({name});" if name else "",
            cost="a standby or subscriber that comes back later must be rebuilt",
        )
        yield Finding("replication slot", Urgency.SOON, Confidence.COUNTED, title, seen, (fix,))
