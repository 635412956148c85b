"""The record is moved aside again and again while the reaper works: no line of it may be lost.

As logrotate does, with a SIGHUP afterwards or without one, and now and then while the life after a SIGKILL
starts. It is moved at most once in a cycle, for an open intent is looked for in the file and the one before.
"""

import time
from random import Random
from signal import SIGHUP
from typing import Final

from .patrol import INTENT_LINE, Patrol, patrolled
from .report import Report, figures

_NAME: Final = "rotated"
_LATER: Final = 0.05
_CRASHES: Final = 0.2
_START: Final = 0.8
_SIGHUP: Final = "and SIGHUP sent"
_NOBODY: Final = "and nobody told"
_STARTING: Final = "while the life after a SIGKILL started"


def rotation(*, rotations: int, seed: int, major: int) -> Report:
    """Move the record aside so many times."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    told = dict.fromkeys((_SIGHUP, _NOBODY, _STARTING), 0)
    with patrolled(_NAME, seed=seed, major=major) as patrol:
        patrol.daemon.start()
        for _ in range(rotations):
            patrol.awaits(INTENT_LINE)
            time.sleep(dice.expovariate(1 / _LATER))
            told[_moved(dice, patrol)] += 1
        patrol.awaits(INTENT_LINE)
        patrol.end()
        patrol.retire()
        account, broken = patrol.judged()
        title = f"Rotation: {rotations:,} renames of the record under load"
        counted = {**account.counted(patrol.died()), "files": len(patrol.records)}
    tables = [figures(title, counted), figures("Renamed", told)]
    return Report(tables=tables, counted=counted, broken=broken)


def _moved(dice: Random, patrol: Patrol) -> str:
    if dice.random() < _CRASHES:
        patrol.crash()
        patrol.daemon.start()
        time.sleep(dice.uniform(0, _START))
        patrol.rotate()
        return _STARTING
    patrol.rotate()
    if dice.random() < 0.5:
        assert patrol.daemon.life
        patrol.daemon.life.send(SIGHUP)
        return _SIGHUP
    return _NOBODY
