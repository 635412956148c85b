"""What a larger max_connections would cost, for that is what people think of first."""

from collections.abc import Iterator
from typing import Final

from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import (
    Cure,
    Finding,
    Sure,
    Urgency,
    about,
    identifier,
    listed,
    many,
    percent,
    short,
    watched,
)
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.time import isoformat

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


_SIXTEEN: Final = 16
_ENOUGH: Final = 2
_USUAL: Final = 3


def kept_for_superusers(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is kept for them."""
    ground = evidence.ground
    if ground is None or ground.number("superuser_reserved_connections") != 0:
        return
    yield Finding(
        topic="reserved",
        urgency=Urgency.SOON,
        sure=Sure.COUNTED,
        says="no slot is kept for superusers: when all are taken, nobody gets in to mend it",
        evidence=("superuser_reserved_connections is 0",),
        cures=(
            Cure(
                does="keep the usual three",
                sql=f"ALTER SYSTEM SET superuser_reserved_connections = {_USUAL};  -- then restart",
                costs="a restart, and three slots less for everybody else",
            ),
        ),
    )


def kept_for_roles(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is kept for whoever looks after a server whose slots are scarce."""
    ground = evidence.ground
    if ground is None or ground.major < _SIXTEEN or evidence.pressure < SCARCE:
        return
    kept = ground.number("reserved_connections")
    if kept is None or kept >= _ENOUGH:
        return
    role = identifier(evidence.last.watcher.role)
    grant = f"GRANT pg_use_reserved_connections TO {role};\n" if role and not ground.uses_reserved else ""
    yield Finding(
        topic="reserved",
        urgency=Urgency.WORTH,
        sure=Sure.COUNTED,
        says="no slot is kept for those who look after the server and are no superusers",
        evidence=(
            f"reserved_connections is {kept}; {evidence.peak:,} of {evidence.usable:,} slots were in use",
        ),
        cures=(
            Cure(
                does="keep a few for roles such as the reaper's",
                sql=f"{grant}ALTER SYSTEM SET reserved_connections = {_ENOUGH};  -- then restart",
                costs=(
                    "a restart, and two slots less for everybody else; a reaper that runs is inside already"
                ),
            ),
        ),
    )


_KB_OF_SLOT: Final = 50
"""Shared memory for each slot, used or not: measured on 15 and 17, 49 MB for a thousand."""
_MB_OF_SESSION: Final = (1.5, 10)
"""One that has done nothing, and one that has read the whole catalog; measured on 13 to 18."""
_KB: Final = 1_024
_PAGE_KB: Final = 8
_STEP: Final = 50
_MOSTLY: Final = 0.5


def raising(evidence: Evidence) -> Iterator[Finding]:
    """Where slots are scarce: what half as many again would cost, and why that is rarely the cure."""
    ground = evidence.ground
    if ground is None or evidence.pressure < SCARCE:
        return
    total = evidence.last.slots.total
    more = max(total // 2 // _STEP * _STEP, _STEP)
    yield Finding(
        topic="max_connections",
        urgency=Urgency.WORTH,
        sure=Sure.POSSIBLE,
        says="raising max_connections is rarely the cure",
        evidence=tuple(_raising_evidence(evidence, ground, more)),
        cures=(
            Cure(
                does="only when every session is needed, and the machine has the memory for it",
                sql=f"ALTER SYSTEM SET max_connections = {total + more};  -- then restart",
                costs=(
                    "a restart, of standbys first: one with fewer than its primary cannot follow it; and "
                    "a leak fills the new slots as it did the old ones"
                ),
            ),
        ),
    )


def _raising_evidence(evidence: Evidence, ground: ServerFacts, more: int) -> Iterator[str]:
    idle = 1 - evidence.working / max(evidence.peak, 1)
    if evidence.looks > 1 and idle > _MOSTLY:
        yield (
            f"{percent(idle)} of the sessions did nothing even at the busiest look: there would be more "
            "of those"
        )
    elif evidence.looks > 1:
        yield "most sessions were at work: more of them than a few for each core make each other slower"
    low, high = (_mb(each * more) for each in _MB_OF_SESSION)
    yield (
        f"{more:,} more take {_mb(_KB_OF_SLOT * more / _KB)} of shared memory at once, and {low} to "
        f"{high} as idle sessions; more with many tables, plans or extensions"
    )
    work_mem = ground.number("work_mem")
    if work_mem is not None:
        times = ground.settings.get("hash_mem_multiplier", "1")
        hashes = "" if times == "1" else f", {times} times that for each hash"
        yield (
            f"at work each takes up to work_mem ({_mb(work_mem / _KB)}) for each sort{hashes}: {more:,} "
            f"at once could take {_mb(more * work_mem / _KB)} and several times that"
        )
    buffers = ground.number("shared_buffers")
    if buffers is not None:
        yield (
            f"shared_buffers has {_mb(buffers * _PAGE_KB / _KB)}; the server does not tell how much the "
            "machine has"
        )


def _mb(count: float) -> str:
    if count >= _KB:
        return f"{count / _KB:.1f} GB"
    return f"{count:.0f} MB" if count >= 1 else f"{count * _KB:.0f} kB"
