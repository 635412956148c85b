"""The audit log is renamed again and again while the reaper works: no line may be lost.

As logrotate does, with a SIGHUP afterwards or without one, and sometimes while the reaper starts after a
SIGKILL. It is renamed at most once in a cycle, because open intents are looked for in the file and in the
one before it.
"""

import time
from random import Random
from signal import SIGHUP
from typing import Final

from tests.lab.report import Report, figures

from .audited import INTENT_LINE, AuditedReaper, audited

_LATER: Final = 0.05
_KILLED: Final = 0.2
_START: Final = 0.8
_SIGHUP: Final = "and SIGHUP sent"
_SILENTLY: Final = "without a signal"
_STARTING: Final = "while the reaper started after a SIGKILL"


def rotation(*, rotations: int, seed: int, major: int) -> Report:
    """Rename the audit log this many times."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    renamed = dict.fromkeys((_SIGHUP, _SILENTLY, _STARTING), 0)
    with audited("rotated", seed=seed, major=major) as reaper:
        reaper.start()
        for _ in range(rotations):
            reaper.await_lines(INTENT_LINE)
            time.sleep(dice.expovariate(1 / _LATER))
            renamed[_rename(dice, reaper)] += 1
        reaper.await_lines(INTENT_LINE)
        reaper.finish()
        reaper.last_run()
        log, ended, broken = reaper.judged()
        counted = {**log.counted(ended), "files": len(reaper.files)}
    title = f"Rotation: {rotations:,} renames of the audit log under load"
    return Report(
        tables=[figures(title, counted), figures("Renamed", renamed)], counted=counted, broken=broken
    )


def _rename(dice: Random, reaper: AuditedReaper) -> str:
    if dice.random() < _KILLED:
        reaper.kill()
        reaper.start()
        time.sleep(dice.uniform(0, _START))
        reaper.rotate()
        return _STARTING
    reaper.rotate()
    if dice.random() < 0.5:
        reaper.send(SIGHUP)
        return _SIGHUP
    return _SILENTLY
