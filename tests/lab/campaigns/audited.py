"""A reaper with a database and sleeping clients of its own; its audit log is judged at the end."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from typing import Final

from tests.lab.clients.sleepers import Habits, Sleepers
from tests.lab.judge.audit_log import INTENT, OUTCOME, AuditLog
from tests.lab.judge.server_log import COUNTS_SINCE, LoggedTermination, sessions_killed, terminated
from tests.lab.world.log import LineCounter
from tests.lab.world.reaper import NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import LabServer
from tests.postgres.waiting import until

INTENT_LINE: Final = f'"event": "{INTENT}"'.encode()
OUTCOME_LINE: Final = f'"event": "{OUTCOME}"'.encode()
_IDLE_FOR: Final = 0.02
_POLL: Final = 0.0005
_PATIENCE: Final = 120.0


def habits(server: LabServer, name: str, seed: int) -> Habits:
    """A dozen sessions in the database of this name, which are mostly terminated and sometimes wake up."""
    return Habits(socket=server.socket, database=name, name=name, count=12, seed=seed)


@contextmanager
def audited(name: str, *, seed: int, major: int, audit: Path | None = None) -> Iterator["AuditedReaper"]:
    """A server with such clients, and a reaper for them that is not started yet."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(LabServer(major))
        reaper = AuditedReaper(server, folder, name, audit=audit)
        reaper.clients = stack.enter_context(Sleepers(habits(server, name, seed)))
        stack.push(reaper.__exit__)
        yield reaper


class AuditedReaper(ReaperProcess):
    """One run after the other, which write one audit log."""

    def __init__(self, server: LabServer, folder: Path, name: str, *, audit: Path | None = None) -> None:
        sleepers = policy("sleepers", _IDLE_FOR, application=[f"{name}.*"], keys=NO_LIMITS)
        text = rules(server.database(name), sleepers, interval=1, min_interval=0.01, name=name)
        super().__init__(folder / name, text, "--listen", "off", audit=str(audit or "audit.jsonl"))
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
        """Rename the audit log as logrotate does; those on another disk are moved to the reaper's."""
        if self._elsewhere:
            self._bring_home(*self._rotated(self.audit.parent))
        self.rotations += 1
        self.audit.rename(self.audit.with_name(f"{self.audit.name}-{self.rotations:08}"))

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is doing."""
        code = self.end(SIGKILL)
        assert code == -SIGKILL, f"it had ended by itself, with {code}"

    def finish(self) -> None:
        code = self.end()
        assert code == 0, f"it ended with {code}"

    def last_run(self) -> None:
        """Run once more, until something is terminated, and end as a service does."""
        self.start()
        self.await_lines(INTENT_LINE)  # what was left open is settled by then, and signals are handled
        self.finish()

    def terminated(self) -> list[LoggedTermination]:
        """The terminations of its clients, by the server's log."""
        return terminated(self._server, f"{self.name}.")

    def judged(self, *, gaps: bool = False) -> tuple[AuditLog, list[LoggedTermination], list[str]]:
        """The audit log, the terminations, and everything in which they differ; gaps may be permitted."""
        log, ended = AuditLog.read(*self.files), self.terminated()
        broken = [*log.disagreements(ended), *self._counter_differs(len(ended)), *self._commands_object()]
        if log.missing and not gaps:
            broken.append(f"{log.missing} lines are missing")
        return log, ended, [f"{self.name}: {what}" for what in broken]

    def _counter_differs(self, ended: int) -> list[str]:
        if self._server.major < COUNTS_SINCE:
            return []
        try:
            until(lambda: self._killed() == ended)
        except TimeoutError:
            return [f"the server counts {self._killed()} sessions killed, and logged {ended}"]
        return []

    def _killed(self) -> int:
        return sessions_killed(self._server, self.name)

    def _commands_object(self) -> list[str]:
        """What `reaper audit` finds wrong, with the server's log as evidence."""
        if self._elsewhere:
            self._bring_home(*self._rotated(self.audit.parent), self.audit)
        log = str(self.folder / self.audit.name)
        answers = {
            "verify": self.command("audit", "verify", log),
            "reconcile": self.command("audit", "reconcile", log, "--server-log", str(self._server.csv_log)),
        }
        return [f"reaper audit {name}: {done.out}{done.err}" for name, done in answers.items() if done.code]

    def _bring_home(self, *files: Path) -> None:
        for file in files:
            shutil.move(file, self.folder / file.name)
