"""How full the server is, and by whom."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.wording import about, listed, many, percent, short, watched
from reaper.policy.spans import isoformat

SCARCE: Final = 0.8
"""From this share of used slots on there is little left for a bad day."""
GONE: Final = 0.95


def slots(evidence: Evidence) -> Iterator[Finding]:
    """The slots are gone, or nearly."""
    if evidence.pressure < SCARCE:
        return
    used, usable = evidence.last.slots.used, evidence.usable
    free = max(usable - used, 0)
    now = evidence.last.slots.share_used >= GONE
    says = f"{percent(evidence.pressure)} of the slots that ordinary roles can use were taken"
    if not free:
        says = f"all {many(usable, 'slot')} that ordinary roles can use are taken: new clients are refused"
    elif now:
        says = f"only {free:,} of the {usable:,} slots that ordinary roles can use are free"
    yield Finding(
        topic="slots",
        urgency=Urgency.NOW if now else Urgency.SOON,
        sure=Sure.COUNTED,
        says=says,
        evidence=tuple(_evidence(evidence)),
        cures=tuple(_cures(evidence)),
        weight=used,
    )


def _evidence(evidence: Evidence) -> Iterator[str]:
    slots = evidence.last.slots
    quiet = sum(len(crowd.quiet) for crowd in evidence.crowds)
    most = f"; {evidence.peak:,} at the most {watched(evidence)}" if evidence.looks > 1 else ""
    if evidence.span > evidence.lately:
        most += f", at {(isoformat(evidence.peak_at) or '')[:16]} UTC"
    yield f"{slots.used:,} of {evidence.usable:,} are used now, {slots.reserved:,} more are reserved{most}"
    busiest = "at the busiest look " if evidence.looks > 1 else ""
    working = many(evidence.working, "session was", "sessions were")
    yield f"{busiest}{working} at work or in a transaction"
    yield f"{quiet:,} have been idle for more than {about(evidence.quiet)}"
    if evidence.crowds:
        yield f"held by {listed([f'{short(crowd.key)} {crowd.count:,}' for crowd in evidence.crowds])}"


def _cures(evidence: Evidence) -> Iterator[Cure]:
    if any(crowd.quiet for crowd in evidence.crowds):
        yield Cure(
            does="end what is idle by policies: write them, and look at whom they mean",
            setting="reaper advise --policy starting.yaml\nreaper plan -p starting.yaml",
            costs="nothing yet: every policy in that file is a dry run until you say `mode: enforce`",
        )
    else:
        yield Cure(
            does="let fewer clients connect, or put a pooler before the server: these sessions are in use",
            costs="a pooler is one program more; ending sessions in use would break what they do",
        )
