"""The disk under the record is filled up again and again: while it is full, nobody may be terminated."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from reaper.telemetry.events import RECORD_FAILED
from tests.postgres.waiting import until

from .patrol import INTENT_LINE, OUTCOME_LINE, Patrol, patrolled
from .report import Report, figures

_NAME: Final = "disk"
_SIZE: Final = 2 * 1024 * 1024
_ROOM: Final = range(4 * 1024, 48 * 1024)
"""What is left of it, so that it is met at every point of a cycle."""
_AGAIN: Final = 2
_CRASHES: Final = 0.3
_PATIENCE: Final = 120.0


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of its own, as large as two megabytes; OSError where nothing can be mounted."""
    folder = Path(tempfile.mkdtemp())
    mount, umount = (shutil.which(name) or name for name in ("mount", "umount"))
    try:
        command = [mount, "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())
        try:
            yield folder
        finally:
            subprocess.run([umount, str(folder)], check=True)
    finally:
        folder.rmdir()


def disk(*, fillings: int, seed: int, major: int) -> Report:
    """Fill the disk so many times, and make room again."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    told = {"sessions terminated while it was full": 0, "crashes while it was full": 0, "starts refused": 0}
    with (
        small_disk() as folder,
        patrolled(_NAME, seed=seed, major=major, record=folder / "audit.jsonl") as patrol,
    ):
        ballast = folder / "ballast"
        patrol.daemon.start()
        for _ in range(fillings):
            patrol.awaits(OUTCOME_LINE)
            told["sessions terminated while it was full"] += _filled(patrol, ballast, dice.choice(_ROOM))
            if dice.random() < _CRASHES:
                told["crashes while it was full"] += 1
                told["starts refused"] += _crashed(patrol)
            ballast.unlink()
            if not patrol.daemon.running:
                patrol.daemon.start()
            patrol.awaits(OUTCOME_LINE)
            patrol.rotate()
        patrol.awaits(INTENT_LINE)
        patrol.end()
        patrol.retire()
        # What a full disk did not take leaves a gap in the numbers, and is told afterwards.
        account, broken = patrol.judged(gaps=True)
        counted = account.counted(patrol.died())
    if told["sessions terminated while it was full"]:
        broken.append("sessions were terminated while the disk was full")
    title = f"Disk: {fillings:,} times full under load"
    tables = [figures(title, counted), figures("While it was full", told)]
    return Report(tables=tables, counted=counted, broken=broken)


def _filled(patrol: Patrol, ballast: Path, room: int) -> int:
    """Let the record run into the end of the disk; how many are terminated in the two cycles after that."""
    since = time.time()
    taken = shutil.disk_usage(ballast.parent)
    ballast.write_bytes(b"\0" * max(0, taken.free - room))
    patrol.daemon.wait(RECORD_FAILED, since=since, within=_PATIENCE)
    full = len(patrol.died())

    def again() -> bool:
        return len(patrol.daemon.journal.named(RECORD_FAILED, since=since)) > _AGAIN

    until(again, within=_PATIENCE)
    return len(patrol.died()) - full


def _crashed(patrol: Patrol) -> bool:
    """End it and start it again while the disk is full; whether it refuses to begin."""
    patrol.crash()
    since = time.time()
    patrol.daemon.start()
    life = patrol.daemon.life
    assert life
    until(
        lambda: not life.running or patrol.daemon.journal.named(RECORD_FAILED, since=since), within=_PATIENCE
    )
    return not life.running
