"""Transactions that are open for long: forgotten by their client, or just at work."""

from collections.abc import Iterator, Sequence
from typing import Final

from reaper.policy.advice.evidence import Crowd, Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.timeouts import (
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
from reaper.policy.advice.wording import about, listed, many
from reaper.policy.poolers import pooler
from reaper.policy.protections import is_backup_tool, is_managed
from reaper.policy.session import ABORTED, ACTIVE, Session
from reaper.policy.spans import Span, since

_LONG: Final = 6
"""Times what is quiet: an hour, as it is by default."""
_MOST: Final = 5


def idle_in_transaction(evidence: Evidence) -> Iterator[Finding]:
    """Each role whose sessions wait inside a transaction for so long that they are probably forgotten."""
    roles = [(role, crowds) for role, crowds in _by_role(evidence) if _forgotten(crowds)]
    roles.sort(key=lambda each: (-len(_forgotten(each[1])), each[0]))
    for role, crowds in roles[:_MOST]:
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
    if rest := roles[_MOST:]:
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
