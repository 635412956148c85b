"""What holds vacuum back without a session: prepared transactions and replication slots that nobody uses."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.ground import Prepared, ReplicationSlot
from reaper.policy.advice.quoting import literal
from reaper.policy.advice.transactions import FAR
from reaper.policy.advice.wording import about, many
from reaper.policy.spans import Span

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


def _deciding(oldest: Prepared) -> Iterator[Cure]:
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
