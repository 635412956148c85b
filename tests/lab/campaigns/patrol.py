"""The real `reaper run` at a database of its own, with a crowd of its own to look after."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from typing import Final

from tests.lab.benchmarks.ground import Daemon, Ground
from tests.postgres.waiting import until
from tests.system.policies import policy_file

from .account import Account
from .crowds import Crowds
from .sleepers import Habits
from .tail import Tail
from .witness import LOG_LINE_PREFIX, deaths, sessions_killed

INTENT_LINE: Final = b'"event": "session.intent"'
OUTCOME_LINE: Final = b'"event": "session.outcome"'

_IDLE_FOR: Final = "20ms"
_COUNTS_SINCE: Final = 14
_SPIN: Final = 0.0005
_PATIENCE: Final = 120.0


def crowd_of(ground: Ground, name: str, seed: int) -> Habits:
    """A dozen sessions that mostly deserve it and sometimes wake up, in the database of their own name."""
    return Habits(
        socket=f"{ground.server.folder}/socket/.s.PGSQL.{ground.server.port}",
        role="app",
        database=name,
        name=name,
        count=12,
        wakes_after=0.2,
        works_for=0.01,
        comes_back_after=0.2,
        seed=seed,
    )


@contextmanager
def patrolled(name: str, *, seed: int, major: int, record: Path | None = None) -> Iterator["Patrol"]:
    """A server with one such crowd, and the reaper that is to look after it, not started yet."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        ground = stack.enter_context(Ground(major))
        ground.role("app")
        patrol = Patrol(ground, folder, name, record=record)
        patrol.crowds = stack.enter_context(Crowds(crowd_of(ground, name, seed)))
        stack.push(patrol.daemon)
        yield patrol


class Patrol:
    """Lives of a reaper that write one record after the other."""

    def __init__(self, ground: Ground, folder: Path, name: str, *, record: Path | None = None) -> None:
        self._ground = ground
        self.name = name
        self.crowds: Crowds | None = None
        self.rotations = 0
        self.folder = folder / name
        self.record = record or self.folder / "audit.jsonl"
        match = {"state": ["idle"], "idle_for": _IDLE_FOR, "application": [f"{name}.*"]}
        policy = {"name": "sleepers", "mode": "enforce", "match": match, "brake": "off"}
        server = {"name": name, "dsn": ground.database(name)}
        text = policy_file(policy, interval="1s", precision="10ms", servers=[server])
        self.daemon = Daemon(self.folder, text, "--listen", "off", level="info", record=str(self.record))

    @property
    def records(self) -> list[Path]:
        """The record, the oldest file first."""
        beside = self._copies(self.record.parent) if self.record.parent != self.folder else []
        return [*self._copies(self.folder), *beside, *([self.record] if self.record.exists() else [])]

    def _copies(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"{self.record.name}-*"))

    def awaits(self, wanted: bytes, times: int = 1) -> None:
        """Return as soon as such lines were seen to be written for so many times from now on."""
        tail = Tail(self.record, wanted)
        for _ in range(times):
            until(partial(self._more, tail, tail.count()), within=_PATIENCE, every=_SPIN)

    def rotate(self) -> None:
        """Move the record aside as logrotate does; from another disk the copy before goes home."""
        if self.record.parent != self.folder:
            for copy in self._copies(self.record.parent):
                shutil.move(copy, self.folder / copy.name)
        self.rotations += 1
        self.record.rename(self.record.with_name(f"{self.record.name}-{self.rotations:08}"))

    def crash(self) -> None:
        """SIGKILL, whatever it is doing."""
        assert self.daemon.life
        code = self.daemon.life.end(SIGKILL).code
        assert code == -SIGKILL, f"it had ended by itself, with {code}"

    def retire(self) -> None:
        """A last life, which works a little and ends as it should."""
        self.daemon.start()
        self.awaits(INTENT_LINE)  # by then it has settled what was left open, and listens to signals
        self.end()

    def end(self) -> None:
        """SIGTERM, as a service manager does."""
        assert self.daemon.life
        code = self.daemon.life.end().code
        assert code == 0, f"it ended with {code}"

    def died(self) -> set[str]:
        """Whom the server's log says that an administrator's command has terminated."""
        log = self._ground.server.log_path
        return {who for death in deaths(log) if (who := death.application).startswith(f"{self.name}.")}

    def judged(self, *, gaps: bool = False) -> tuple[Account, list[str]]:
        """The record, and everything in which the server disagrees with it, with or without gaps in it."""
        account, died = Account.of(self.records), self.died()
        told = [*account.disagreements(died), *self._objections(len(died)), *self._answers()]
        if account.missing and not gaps:
            told.append(f"{account.missing} lines are missing")
        return account, [f"{self.name}: {what}" for what in told]

    def _objections(self, died: int) -> list[str]:
        """Where the server's own counter does not agree with so many deaths, in words."""
        if self._ground.server.major < _COUNTS_SINCE:
            return []
        try:
            until(lambda: self._killed() == died)
        except TimeoutError:
            return [f"the server counts {self._killed()} sessions killed, and logged {died}"]
        return []

    def _answers(self) -> list[str]:
        """What `reaper audit` itself finds wrong, in the evidence that a person would give it."""
        log = ("--server-log", str(self._ground.server.log_path), "--log-line-prefix", LOG_LINE_PREFIX)
        record = str(self.folder / self.record.name)
        for copy in (*self._copies(self.record.parent), self.record):
            if copy.parent != self.folder:
                shutil.move(copy, self.folder / copy.name)
        answers = {
            "verify": self.daemon.ask("audit", "verify", record),
            "reconcile": self.daemon.ask("audit", "reconcile", record, *log),
        }
        return [f"reaper audit {name}: {done.out}{done.err}" for name, done in answers.items() if done.code]

    def _killed(self) -> int:
        return sessions_killed(self._ground.server.dsn, self.name)

    def _more(self, tail: Tail, before: int) -> bool:
        assert self.daemon.running, f"{self.name} has ended by itself"
        if self.crowds:
            self.crowds.check()
        return tail.count() > before
