"""A reaper whose audit log is judged at the end; and campaigns that rename the log or fill its disk.

No line may be lost, and no session may be terminated while the disk is full. The file is renamed at most once
in a cycle, because open intents are looked for in it and in the one before.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGHUP, SIGKILL
from typing import Final

from reaper.telemetry.events import AUDIT_FAILED
from tests.lab.clients.sleepers import Habits, Sleepers
from tests.lab.judge.logs import (
    COUNTS_SINCE,
    INTENT,
    OUTCOME,
    AuditLog,
    TerminationByServer,
    sessions_killed,
    terminated,
)
from tests.lab.report import Report, figures
from tests.lab.world.isolation import small_disk
from tests.lab.world.observe import LineCounter
from tests.lab.world.reaper import NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import LabServer, lab_server
from tests.postgres.waiting import until

INTENT_LINE: Final = f'"event": "{INTENT}"'.encode()
OUTCOME_LINE: Final = f'"event": "{OUTCOME}"'.encode()
_IDLE_FOR: Final = 0.02
_POLL: Final = 0.0005
_PATIENCE: Final = 120.0


def habits(server: LabServer, name: str, seed: int) -> Habits:
    """A dozen sessions in the database of this name, which are mostly terminated and sometimes wake up."""
    return Habits(socket=server.socket, database=name, name=name, count=12, seed=seed)


class AuditedReaper(ReaperProcess):
    """A reaper that is started several times and writes one audit log."""

    def __init__(self, server: LabServer, folder: Path, name: str, *, audit: Path | None = None) -> None:
        sleepers = policy("sleepers", _IDLE_FOR, application=[f"{name}.*"], keys=NO_LIMITS)
        text = rules(server.database(name), sleepers, interval=1, min_interval=0.01, name=name)
        super().__init__(folder / name, text, audit=str(audit or "audit.jsonl"))
        self.name = name
        self.rotations = 0
        self.clients: Sleepers | None = None
        self._server = server
        self._elsewhere = audit is not None

    @property
    def files(self) -> list[Path]:
        """The files of the audit log, the oldest first."""
        beside = self._rotated(self.audit.parent) if self._elsewhere else []
        return [*self._rotated(self.folder), *beside, *([self.audit] if self.audit.exists() else [])]

    def _rotated(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"{self.audit.name}-*"))

    def await_lines(self, text: bytes, times: int = 1) -> None:
        """Return as soon as such lines were written this many times from now on."""
        counter = LineCounter(self.audit, text)
        for _ in range(times):
            until(partial(self._is_more, counter, counter.count()), within=_PATIENCE, every=_POLL)

    def _is_more(self, counter: LineCounter, before: int) -> bool:
        assert self.running, f"{self.name} has ended by itself"
        if self.clients:
            self.clients.check()
        return counter.count() > before

    def rotate(self) -> None:
        """Rename the audit log as logrotate does; files on another disk are moved to the reaper's folder."""
        if self._elsewhere:
            self._move_home(*self._rotated(self.audit.parent))
        self.rotations += 1
        self.audit.rename(self.audit.with_name(f"{self.audit.name}-{self.rotations:08}"))

    def kill(self) -> None:
        """End it with SIGKILL."""
        code = self.end(SIGKILL)
        assert code == -SIGKILL, f"it had ended by itself, with {code}"

    def finish(self) -> None:
        code = self.end()
        assert code == 0, f"it ended with {code}"

    def last_run(self) -> None:
        """Run once more until a session is terminated, and end as a service does."""
        self.start()
        self.await_lines(INTENT_LINE)  # what was left open is settled by then, and signals are handled
        self.finish()

    def terminated(self) -> list[TerminationByServer]:
        """The terminations of its clients, by the server's log."""
        return terminated(self._server, f"{self.name}.")

    def decided(self, *, gaps: bool = False) -> tuple[AuditLog, list[TerminationByServer], list[str]]:
        """The audit log, the terminations, and everything in which they differ; gaps may be permitted."""
        log, ended = AuditLog.read(*self.files), self.terminated()
        broken = [*log.disagreements(ended), *self._counter_differs(len(ended)), *self._complaints()]
        if log.missing and not gaps:
            broken.append(f"{log.missing} lines are missing")
        return log, ended, [f"{self.name}: {what}" for what in broken]

    def _counter_differs(self, ended: int) -> list[str]:
        if self._server.major < COUNTS_SINCE:
            return []
        try:
            until(lambda: sessions_killed(self._server, self.name) == ended)
        except TimeoutError:
            return [f"the server counts {sessions_killed(self._server, self.name)} terminations, not {ended}"]
        return []

    def _complaints(self) -> list[str]:
        """What `reaper audit` finds wrong, with the server's log as evidence."""
        if self._elsewhere:
            self._move_home(*self._rotated(self.audit.parent), self.audit)
        log = str(self.folder / self.audit.name)
        answers = {
            "verify": self.command("audit", "verify", log),
            "reconcile": self.command("audit", "reconcile", log, "--server-log", str(self._server.csv_log)),
        }
        return [f"reaper audit {name}: {done.out}{done.err}" for name, done in answers.items() if done.code]

    def _move_home(self, *files: Path) -> None:
        for file in files:
            shutil.move(file, self.folder / file.name)


@contextmanager
def _audited(name: str, *, seed: int, major: int, audit: Path | None = None) -> Iterator[AuditedReaper]:
    """A reaper that works among such clients."""
    with lab_server(major) as (server, folder):
        reaper = AuditedReaper(server, folder, name, audit=audit)
        with Sleepers(habits(server, name, seed)) as reaper.clients, reaper:
            yield reaper


_LATER: Final = 0.05
_KILLED: Final = 0.2
_START: Final = 0.8
_SIGHUP: Final = "and SIGHUP sent"
_SILENTLY: Final = "without a signal"
_STARTING: Final = "while the reaper started after a SIGKILL"


def rotation(*, major: int, rotations: int = 300, seed: int = 20261120) -> Report:
    """Rename the audit log under load."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    renamed = dict.fromkeys((_SIGHUP, _SILENTLY, _STARTING), 0)
    with _audited("rotated", seed=seed, major=major) as reaper:
        for _ in range(rotations):
            reaper.await_lines(INTENT_LINE)
            time.sleep(dice.expovariate(1 / _LATER))
            renamed[_rename(dice, reaper)] += 1
        reaper.await_lines(INTENT_LINE)
        reaper.finish()
        reaper.last_run()
        log, ended, broken = reaper.decided()
        counted = {**log.counted(ended), "files": len(reaper.files)}
    title = f"Rotation: {rotations:,} renames of the audit log under load"
    tables = [figures(title, counted), figures("Renamed", renamed)]
    return Report(tables=tables, counted=counted, broken=broken)


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
_TERMINATED: Final = "sessions terminated while it was full"
_CRASHES: Final = "crashes while it was full"
_REFUSED: Final = "starts refused"


def disk(*, major: int, fillings: int = 50, seed: int = 20261120) -> Report:
    """Fill the disk of the audit log under load, and make room again."""
    dice = Random(seed)  # noqa: S311 (the same choices in every run)
    meanwhile = dict.fromkeys((_TERMINATED, _CRASHES, _REFUSED), 0)
    with (
        small_disk(DISK_SIZE) as folder,
        _audited("disk", seed=seed, major=major, audit=folder / "audit.jsonl") as reaper,
    ):
        ballast = folder / "ballast"
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
        log, ended, broken = reaper.decided(gaps=True)
    if meanwhile[_TERMINATED]:
        broken.append("sessions were terminated while the disk was full")
    counted = log.counted(ended)
    title = f"Disk: {fillings:,} times full under load"
    tables = [figures(title, counted), figures("While it was full", meanwhile)]
    return Report(tables=tables, counted=counted, broken=broken)


def _filled(reaper: AuditedReaper, ballast: Path, room: int) -> int:
    """Fill the disk; return the number of sessions terminated in the next cycles after a failed write."""
    since = time.time()
    free = shutil.disk_usage(ballast.parent).free
    ballast.write_bytes(b"\0" * max(0, free - room))
    reaper.wait(AUDIT_FAILED, since=since)
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
