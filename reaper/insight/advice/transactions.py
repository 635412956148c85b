"""What holds vacuum back without a session: prepared transactions and replication slots that nobody uses."""

from collections.abc import Iterator, Sequence
from typing import Final

from reaper.insight.advice.evidence import IN_A_TRANSACTION, Crowd, Evidence
from reaper.insight.advice.finding import Cure, Finding, Sure, Urgency, about, listed, literal, many
from reaper.insight.advice.server_facts import PreparedTransaction, ReplicationSlot
from reaper.insight.advice.timeouts import (
    IDLE_IN_TRANSACTION,
    PAUSES,
    TRANSACTION,
    TRANSACTIONS,
    Limit,
    limit_above,
    set_for_role,
    settable,
    together,
    would_end,
)
from reaper.policy.poolers import pooler
from reaper.policy.protections import is_backup_tool, is_managed
from reaper.policy.session import ABORTED, ACTIVE, LOCAL, Session
from reaper.policy.time import Span, isoformat, since

FAR: Final = 1_000_000
"""Transactions: tables that change much are noticeably larger by then."""
_PATIENCE_SHARE: Final = 10
_MOST: Final = 5


def blockers(evidence: Evidence) -> Iterator[Finding]:
    """Each session that does nothing inside a transaction while others wait for its locks."""
    waiters = evidence.last.facts.waiters or {}
    for session in _blocking(evidence)[:_MOST]:
        count = waiters[session.id.pid]
        yield Finding(
            topic="blocking",
            urgency=Urgency.NOW,
            sure=Sure.COUNTED,
            says=(
                f"{many(count, 'session waits', 'sessions wait')} for pid {session.id.pid}, which does "
                "nothing"
            ),
            evidence=(_since(session, evidence), *_held_back(session)),
            cures=(_ending(session),),
            role=session.identity.role,
            application=session.identity.application,
            weight=count,
        )


def _blocking(evidence: Evidence) -> list[Session]:
    waiters = evidence.last.facts.waiters or {}
    patience = evidence.quiet // _PATIENCE_SHARE
    found = [
        session
        for session in evidence.last.sessions
        if waiters.get(session.id.pid)
        and session.state in IN_A_TRANSACTION
        and (since(session.state_change, evidence.last.at) or 0) >= patience
    ]
    return sorted(found, key=lambda each: (-waiters[each.id.pid], each.id))


def vacuum(evidence: Evidence) -> Iterator[Finding]:
    """The session that keeps vacuum from most, when it does nothing."""
    told = {session.id for session in _blocking(evidence)[:_MOST]}
    held = [
        (session.xid_age, session.id.pid, session)
        for session in evidence.last.sessions
        if session.state in IN_A_TRANSACTION and session.xid_age is not None and session.xid_age >= FAR
    ]
    if not held or max(held)[2].id in told:
        return
    age, pid, session = max(held)
    backup = is_backup_tool(session.identity.application)
    yield Finding(
        topic="vacuum",
        urgency=Urgency.WORTH if backup else Urgency.SOON,
        sure=Sure.COUNTED,
        says=f"pid {pid} waits in a transaction, and keeps vacuum from {age:,} transactions",
        evidence=(
            _since(session, evidence),
            *_others(len(held) - 1),
            "what was deleted or updated since then stays in its tables and indexes",
        ),
        cures=(
            Cure(does="it is a backup: let it finish; if it is often in the way, take it from a standby")
            if backup
            else _ending(session),
        ),
        role=session.identity.role,
        application=session.identity.application,
        weight=age,
    )


def _others(count: int) -> Iterator[str]:
    if count:
        yield f"{many(count, 'other session does', 'other sessions do')} the same, from later on"


def _held_back(session: Session) -> Iterator[str]:
    if session.xid_age is not None and session.xid_age >= FAR:
        yield f"it also keeps vacuum from {session.xid_age:,} transactions"


def _since(session: Session, evidence: Evidence) -> str:
    who = session.identity
    age = since(session.state_change, evidence.last.at)
    named = f"application {who.application!r}" if who.application else "no application name"
    return (
        f"role {who.role!r}, {named}, database {who.database!r}, from {who.client or LOCAL}: "
        f"{session.state} for {'an unknown time' if age is None else about(max(age, 0))}"
    )


def _ending(session: Session) -> Cure:
    pid = session.id.pid
    begun = literal(isoformat(session.id.backend_start) or "")
    chosen = f"pid = {pid} AND backend_start = {begun} AND state = {literal(session.state or '')}"
    return Cure(
        does="ask whoever it belongs to; if nobody answers, end it",
        # The pid stands in the call too: who copies half of this ends nobody else.
        sql=f"SELECT pg_terminate_backend({pid}) FROM pg_stat_activity WHERE {chosen};",  # noqa: S608
        costs="its transaction is rolled back, and its client sees an error",
    )


_LONG: Final = 6
"""Times what is quiet: an hour, as it is by default."""
_HELD_OPEN_MOST: Final = 5


def idle_in_transaction(evidence: Evidence) -> Iterator[Finding]:
    """Each role whose sessions wait inside a transaction for so long that they are probably forgotten."""
    roles = [(role, crowds) for role, crowds in _by_role(evidence) if _forgotten(crowds)]
    roles.sort(key=lambda each: (-len(_forgotten(each[1])), each[0]))
    for role, crowds in roles[:_HELD_OPEN_MOST]:
        forgotten = _forgotten(crowds)
        longest = max(since(session.state_change, evidence.last.at) or 0 for session in forgotten)
        limit = limit_above(together(crowd.pauses for crowd in crowds), least=crowds[0].patience, what=PAUSES)
        names = sorted({crowd.key.application for crowd in crowds if crowd.forgotten})
        yield Finding(
            topic="idle in transaction",
            urgency=Urgency.SOON if longest >= evidence.quiet else Urgency.WORTH,
            sure=Sure.LIKELY if limit and limit.enough else Sure.POSSIBLE,
            says=f"{many(len(forgotten), 'transaction')} of role {role!r} seem forgotten"
            if len(forgotten) > 1
            else f"a transaction of role {role!r} seems forgotten",
            evidence=(
                (
                    f"idle in transaction for more than {about(crowds[0].patience)}, the longest for "
                    f"{about(longest)}, in "
                    f"{listed([repr(name) if name else 'a session without a name' for name in names])}"
                ),
                _keeps(forgotten),
                limit.because if limit else "others that ended took longer than any sensible limit",
            ),
            cures=tuple(_cures(role, forgotten, limit, evidence)),
            role=role,
            application=names[0] if len(names) == 1 else None,
            weight=len(forgotten),
        )
    if rest := roles[_HELD_OPEN_MOST:]:
        yield Finding(
            topic="idle in transaction",
            urgency=Urgency.WORTH,
            sure=Sure.POSSIBLE,
            says=f"{many(len(rest), 'more role has', 'more roles have')} transactions that seem forgotten",
            evidence=(f"roles {listed([repr(role) for role, _ in rest])}",),
        )


def _keeps(sessions: Sequence[Session]) -> str:
    """What they keep from others; one that has failed has let go of all but its slot."""
    if all(session.state == ABORTED for session in sessions):
        return "it has failed and holds nothing any more, but it keeps its slot until its client ends it"
    if any((session.xid_age or 0) > 1 for session in sessions):
        return "until it ends it keeps its slot, its locks, and vacuum from what is younger"
    return "until it ends it keeps its slot and its locks"


def _forgotten(crowds: Sequence[Crowd]) -> list[Session]:
    return [session for crowd in crowds for session in crowd.forgotten]


def _cures(
    role: str, forgotten: Sequence[Session], limit: Limit | None, evidence: Evidence
) -> Iterator[Cure]:
    yield Cure(
        does=(
            "in the application: end a transaction before waiting for anything else (a person, a queue, "
            "an API)"
        )
    )
    if limit is None or not settable(IDLE_IN_TRANSACTION, role, evidence):
        return
    if any(crowd.key.role == role and is_backup_tool(crowd.key.application) for crowd in evidence.crowds):
        yield Cure(
            does=f"and give backups a role of their own; then {IDLE_IN_TRANSACTION} can be set for {role!r}",
            costs=(
                "today it would end them: the leader of a parallel pg_dump waits in its transaction all along"
            ),
        )
    elif would_end(forgotten, limit.span, evidence):
        yield Cure(
            does=(
                f"and let the server end what waits like that for {about(limit.span)}, in sessions that "
                "begin from then on"
            ),
            sql=set_for_role(role, IDLE_IN_TRANSACTION, limit.span),
            costs=(
                "the transaction is rolled back and the client disconnected (25P03): its pool must open "
                "another"
            ),
        )


def long_transactions(evidence: Evidence) -> Iterator[Finding]:
    """Each role that keeps a transaction open for very long, and works in it: no other timeout ends that."""
    least = Span(evidence.quiet * _LONG)
    for role, crowds in _by_role(evidence):
        running = [s for crowd in crowds for s in crowd.sessions if _works_for(s, least, evidence)]
        limit = limit_above(together(crowd.transactions for crowd in crowds), least=least, what=TRANSACTIONS)
        if not running or limit is None or not settable(TRANSACTION, role, evidence):
            continue
        longest = max(since(session.xact_start, evidence.last.at) or 0 for session in running)
        yield Finding(
            topic="long transaction",
            urgency=Urgency.WORTH,
            sure=Sure.POSSIBLE,
            says=(
                f"{many(len(running), 'transaction')} of role {role!r} "
                f"{'is' if len(running) == 1 else 'are'} at work for more than {about(least)}"
            ),
            evidence=(
                f"the longest for {about(longest)}, and keeps vacuum from what is younger",
                limit.because,
            ),
            cures=(
                Cure(
                    does=(
                        "only if nothing of this role is meant to take so long: let the server end such "
                        "transactions"
                    ),
                    sql=set_for_role(role, TRANSACTION, limit.span),
                    costs=(
                        "reports, migrations and batches that do take so long are ended too, and rolled back"
                    ),
                ),
            ),
            role=role,
            weight=len(running),
        )


def _works_for(session: Session, least: Span, evidence: Evidence) -> bool:
    open_for = since(session.xact_start, evidence.last.at)
    in_state = since(session.state_change, evidence.last.at)
    waits = session.state != ACTIVE and (in_state is None or in_state >= evidence.quiet // 10)
    return open_for is not None and open_for >= least and not waits


def _by_role(evidence: Evidence) -> list[tuple[str, list[Crowd]]]:
    """Everybody's but those that no timeout may end."""
    crowds: dict[str, list[Crowd]] = {}
    for crowd in evidence.crowds:
        name = crowd.key.application
        if not (pooler(name) or is_backup_tool(name) or is_managed(crowd.key.role)):
            crowds.setdefault(crowd.key.role, []).append(crowd)
    return sorted(crowds.items())


_MB: Final = 1024 * 1024
_MUCH: Final = 1024 * _MB
"""Of the log, in bytes: less than that is what a standby catches up with."""


def prepared_transactions(evidence: Evidence) -> Iterator[Finding]:
    """Transactions that were prepared, and neither committed nor rolled back since."""
    ground = evidence.ground
    old = [
        each for each in (ground.prepared if ground else ()) if evidence.last.at - each.at >= evidence.quiet
    ]
    if not old:
        return
    oldest = min(old, key=lambda each: each.at)
    yield Finding(
        topic="prepared transactions",
        urgency=Urgency.SOON,
        sure=Sure.COUNTED,
        says=f"{many(len(old), 'prepared transaction waits', 'prepared transactions wait')} for a decision",
        evidence=(
            f"the oldest, {oldest.gid!r} of {oldest.owner!r} in {oldest.database!r}, for "
            f"{about(Span(evidence.last.at - oldest.at))}"
            + (f"; it keeps vacuum from {oldest.xid_age:,} transactions" if oldest.xid_age else ""),
            "it holds its locks and has no session, so that no timeout and no policy ends it",
        ),
        cures=tuple(_deciding(oldest)),
        role=oldest.owner,
        weight=len(old),
    )


def _deciding(oldest: PreparedTransaction) -> Iterator[Cure]:
    if gid := literal(oldest.gid):
        yield Cure(
            does=f"ask its transaction manager what became of it; then, in database {oldest.database!r}",
            sql=f"ROLLBACK PREPARED {gid};",
            costs=(
                "if the other half was committed elsewhere, the two no longer agree: then COMMIT "
                "PREPARED is right"
            ),
        )


def idle_slots(evidence: Evidence) -> Iterator[Finding]:
    """Replication slots that nobody reads, and that keep vacuum or the log from being cleaned up."""
    found = [each for each in (evidence.ground.idle_slots if evidence.ground else ()) if _harms(each)]
    for each in found:
        name = literal(each.name)
        yield Finding(
            topic="replication slot",
            urgency=Urgency.SOON,
            sure=Sure.COUNTED,
            says=f"nobody reads the {each.kind} replication slot {each.name!r}",
            evidence=(
                "; ".join(_kept(each)),
                "until somebody reads it or drops it, that grows until the disk is full",
            ),
            cures=(
                Cure(
                    does="start its standby or subscriber again; if there is none any more",
                    sql=f"SELECT pg_drop_replication_slot({name});" if name else "",
                    costs="a standby or subscriber that comes back later has to be built anew",
                ),
            ),
            weight=each.retained or 0,
        )


def _harms(each: ReplicationSlot) -> bool:
    return (each.retained or 0) >= _MUCH or (each.xid_age or 0) >= FAR


def _kept(each: ReplicationSlot) -> Iterator[str]:
    if each.retained:
        yield f"it keeps {each.retained / _MB:,.0f} MB of the write-ahead log"
    if each.xid_age:
        yield f"it keeps vacuum from {each.xid_age:,} transactions"
