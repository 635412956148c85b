"""The audit log is renamed, or its disk is full, again and again while the reaper works.

No line may be lost, and nothing may be terminated while the disk is full. The file is renamed at most once in
a cycle, because open intents are looked for in it and in the one before.
"""

import shutil
import time
from pathlib import Path
from random import Random
from signal import SIGHUP
from typing import Final

from reaper.telemetry.events import AUDIT_FAILED
from tests.lab.report import Report, figures
from tests.lab.world.isolation import small_disk
from tests.postgres.waiting import until

from .audited import INTENT_LINE, OUTCOME_LINE, AuditedReaper, audited

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


DISK_SIZE: Final = "2m"
_ROOM: Final = range(4 * 1024, 48 * 1024)
"""The bytes that are left, so that the disk becomes full at every point of a cycle."""
_FAILURES: Final = 3
_PATIENCE: Final = 120.0
_TERMINATED: Final = "sessions terminated while it was full"
_CRASHES: Final = "crashes while it was full"
_REFUSED: Final = "starts refused"


def disk(*, fillings: int, seed: int, major: int) -> Report:
    """Fill the disk this many times, and make room again."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    meanwhile = dict.fromkeys((_TERMINATED, _CRASHES, _REFUSED), 0)
    with (
        small_disk(DISK_SIZE) as folder,
        audited("disk", seed=seed, major=major, audit=folder / "audit.jsonl") as reaper,
    ):
        ballast = folder / "ballast"
        reaper.start()
        for _ in range(fillings):
            reaper.await_lines(OUTCOME_LINE)
            meanwhile[_TERMINATED] += _filled(reaper, ballast, dice.choice(_ROOM))
            if dice.random() < _KILLED:
                meanwhile[_CRASHES] += 1
                meanwhile[_REFUSED] += _start_refused(reaper)
            ballast.unlink()
            if not reaper.running:
                reaper.start()
            reaper.await_lines(OUTCOME_LINE)
            reaper.rotate()
        reaper.await_lines(INTENT_LINE)
        reaper.finish()
        reaper.last_run()
        # Lines that did not fit leave a gap in the numbers, which the audit log reports afterwards.
        log, ended, broken = reaper.judged(gaps=True)
    if meanwhile[_TERMINATED]:
        broken.append("sessions were terminated while the disk was full")
    counted = log.counted(ended)
    tables = [
        figures(f"Disk: {fillings:,} times full under load", counted),
        figures("While it was full", meanwhile),
    ]
    return Report(tables=tables, counted=counted, broken=broken)


def _filled(reaper: AuditedReaper, ballast: Path, room: int) -> int:
    """Fill the disk; return how many sessions are terminated in the next cycles after a failed write."""
    since = time.time()
    free = shutil.disk_usage(ballast.parent).free
    ballast.write_bytes(b"\0" * max(0, free - room))
    reaper.wait(AUDIT_FAILED, since=since, within=_PATIENCE)
    before = len(reaper.terminated())
    until(lambda: len(reaper.log.named(AUDIT_FAILED, since=since)) >= _FAILURES, within=_PATIENCE)
    return len(reaper.terminated()) - before


def _start_refused(reaper: AuditedReaper) -> bool:
    """Kill it and start it while the disk is full; return True if it refuses to start."""
    reaper.kill()
    since = time.time()
    reaper.start()
    until(lambda: not reaper.running or reaper.log.named(AUDIT_FAILED, since=since), within=_PATIENCE)
    return not reaper.running
