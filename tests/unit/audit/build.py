"""Ledgers, sessions and sinks for the tests of the audit log."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from reaper.audit.chain import Chain
from reaper.audit.events import OPENED
from reaper.audit.file import FileSink
from reaper.audit.ledger import Author, Ledger
from reaper.audit.sinks import AuditLogFailed, Notice, Sink
from reaper.policy.match import Match
from reaper.policy.plan import Candidate, Outcome, Result
from reaper.policy.rules import Mode, Policy
from reaper.policy.session import IDLE, Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.time import SECOND, Duration, Timestamp

AT: Final = Timestamp(1_750_248_000_000_000)
HOST_TIME: Final = datetime(2025, 6, 18, 12, 0, 0, 123456, tzinfo=UTC)
AUTHOR: Final = Author(
    version="1.2.3", host="db-host", by="reaper", server="orders", rules="d1gest", dry_run=False
)
TORN_LINE: Final = b'{"schema": 1, "event": "session.int'
TERMINATED: Final = Outcome(result=Result.TERMINATED, at=AT)
POLICY: Final = Policy(
    name="leaked",
    mode=Mode.ENFORCE,
    match=Match(states=(IDLE,), idle_for=Duration(600 * SECOND)),
)


def session(pid: int = 4711, *, application: str | None = "web-1", query: str | None = None) -> Session:
    return Session(
        id=SessionId(pid, Timestamp(AT - 3_600 * SECOND)),
        identity=Identity("shop", "app_web", application, "10.2.0.7"),
        client_port=50_000,
        state=IDLE,
        state_change=Timestamp(AT - 751 * SECOND),
        query_start=Timestamp(AT - 752 * SECOND),
        query=query,
    )


def candidate(pid: int = 4711, *, application: str | None = "web-1", query: str | None = None) -> Candidate:
    return Candidate(
        session=session(pid, application=application, query=query),
        policy=POLICY,
        reason="idle 12m31s, limit 10m",
    )


SNAPSHOT: Final = Snapshot(
    server="orders",
    at=AT,
    slots=Slots(total=100, reserved=3, used=40, superuser_reserved=3),
    watcher=Watcher(pid=1, role="reaper", superuser=False),
    sessions=(session(),),
)


def ledger(*sinks: Sink, run: str = "run") -> Ledger:
    return Ledger(sinks, clock=lambda: HOST_TIME, run=run)


def act(log: Ledger, pid: int = 1) -> None:
    """One intent with its outcome."""
    (intent,) = log.intend(AUTHOR, "c1", SNAPSHOT, [candidate(pid)])
    log.log_outcomes([(intent, TERMINATED)])


def write_run(path: Path, *, run: str = "run") -> None:
    """A run with one termination that ends well: opened, intent, outcome, closed."""
    log = ledger(FileSink(path), run=run)
    act(log)
    log.close()


def crash(log: Ledger) -> None:
    """The end of a run by SIGKILL: its files are closed, and nothing more is written."""
    for each in log._sinks:
        each._sink.close()


def parsed(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def events(path: Path) -> list[dict[str, Any]]:
    """Every line of a file, each of which must be whole."""
    return parsed(path.read_bytes())


def names(path: Path) -> list[str]:
    return [event["event"] for event in events(path)]


def digest(line: bytes) -> str:
    return sha256(line.removesuffix(b"\n")).hexdigest()


def compressed(file: Path) -> Path:
    """The file that gzip leaves in place of this one."""
    copy = file.with_name(f"{file.name}.gz")
    copy.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return copy


@dataclass
class MemorySink:
    """A sink in memory that can fail: before it takes anything, or when it has taken it."""

    name: str = "sink"
    broken: bool = False
    unsyncable: bool = False
    taken: list[bytes] = field(default_factory=list)
    durable: int = 0
    """The number of lines that are synced."""
    closed: bool = False
    _opened: bool = False
    _chain: Chain = field(default_factory=Chain)

    @property
    def head(self) -> str | None:
        return self._chain.head

    def prepare(self) -> Sequence[Notice]:
        found = [] if self._opened else [Notice(OPENED, "a sink")]
        self._opened = True
        return found

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        if self.broken:
            raise AuditLogFailed(where=self.name, why="it is broken")
        self.taken.extend(self._chain.link(lines))
        if durable and self.unsyncable:
            raise AuditLogFailed(where=self.name, why="it does not last", lost=True)
        if durable:
            self.durable = len(self.taken)

    def reopen(self) -> None:
        self._opened = False

    def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[dict[str, Any]]:
        return parsed(b"".join(self.taken))

    @property
    def written(self) -> list[str]:
        """The outcomes, and the names of all other events."""
        return [event.get("outcome", event["event"]) for event in self.events]
