"""The record is moved aside again and again while the reaper works: no line of it may be lost.

As logrotate does, with a SIGHUP afterwards or without one; now and then the reaper is killed as well. The
record is moved at most once in a cycle, for an open intent is looked for in the file and the one before.
"""

import time
from random import Random
from signal import SIGHUP
from typing import Final

from .patrol import INTENT_LINE, OUTCOME_LINE, Patrol, patrolled
from .report import Report, figures

_NAME: Final = "rotated"
_LATER: Final = 0.05
_CRASHES: Final = 0.1


def rotation(*, rotations: int, seed: int, major: int) -> Report:
    """Move the record aside so many times."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    told = {"SIGHUP": 0, "nobody told": 0, "SIGKILL": 0}
    with patrolled(_NAME, seed=seed, major=major) as patrol:
        patrol.daemon.start()
        for _ in range(rotations):
            patrol.awaits(INTENT_LINE)
            time.sleep(dice.expovariate(1 / _LATER))
            patrol.rotate()
            told[_next(dice, patrol)] += 1
        patrol.awaits(OUTCOME_LINE)
        patrol.end()
        patrol.retire()
        account, broken = patrol.judged()
        title = f"Rotation: {rotations:,} renames of the record under load"
        counted = {**account.counted(patrol.died()), "files": len(patrol.records)}
    tables = [figures(title, counted), figures("After the rename", told)]
    return Report(tables=tables, counted=counted, broken=broken)


def _next(dice: Random, patrol: Patrol) -> str:
    if dice.random() < _CRASHES:
        patrol.crash()
        patrol.daemon.start()
        return "SIGKILL"
    if dice.random() < 0.5:
        assert patrol.daemon.life
        patrol.daemon.life.send(SIGHUP)
        return "SIGHUP"
    return "nobody told"
