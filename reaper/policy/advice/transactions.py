"""Open transactions that others suffer from: who waits for them, and what vacuum cannot clean up."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import IN_A_TRANSACTION, Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.quoting import literal
from reaper.policy.advice.wording import about, many
from reaper.policy.protections import is_backup_tool
from reaper.policy.session import LOCAL, Session
from reaper.policy.spans import isoformat, since

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
