"""What a larger max_connections would cost, for that is what people think of first."""

from collections.abc import Iterator
from typing import Final

from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.finding import Cure, Finding, Sure, Urgency
from reaper.policy.advice.ground import Ground
from reaper.policy.advice.slots import SCARCE
from reaper.policy.advice.wording import percent

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
        evidence=tuple(_evidence(evidence, ground, more)),
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


def _evidence(evidence: Evidence, ground: Ground, more: int) -> Iterator[str]:
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
