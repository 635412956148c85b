"""Ledgers, reaps and sinks, built so that a test shows only what it is about."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from reaper.audit.chain import Chain
from reaper.audit.events import OPENED
from reaper.audit.ledger import Author, Ledger
from reaper.audit.sinks import AuditLogFailed, Notice, Sink
from reaper.policy.match import Match
from reaper.policy.plan import Outcome, Reap, Result
from reaper.policy.rules import Mode, Policy
from reaper.policy.session import IDLE, Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.time import SECOND, Instant, Span

AT: Final = Instant(1_750_248_000_000_000)
HOST_TIME: Final = datetime(2025, 6, 18, 12, 0, 0, 123456, tzinfo=UTC)
AUTHOR: Final = Author(
    version="1.2.3", host="db-host", by="reaper", server="orders", rules="d1gest", dry_run=False
)
TERMINATED: Final = Outcome(result=Result.TERMINATED, at=AT)
POLICY: Final = Policy(
    name="leaked",
    mode=Mode.ENFORCE,
    match=Match(states=(IDLE,), idle_for=Span(600 * SECOND)),
)


def session(pid: int = 4711, *, application: str | None = "web-1", query: str | None = None) -> Session:
    return Session(
        id=SessionId(pid, Instant(AT - 3_600 * SECOND)),
        identity=Identity("shop", "app_web", application, "10.2.0.7"),
        client_port=50_000,
        state=IDLE,
        state_change=Instant(AT - 751 * SECOND),
        query_start=Instant(AT - 752 * SECOND),
        query=query,
    )


def reap(pid: int = 4711, *, application: str | None = "web-1", query: str | None = None) -> Reap:
    return Reap(
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


def ledger(*sinks: Sink, run: str = "life") -> Ledger:
    return Ledger(sinks, clock=lambda: HOST_TIME, run=run)


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


@dataclass
class MemorySink:
    """A sink that keeps what it is given, and can be told to fail: with nothing taken, or with losses."""

    name: str = "sink"
    broken: bool = False
    unsyncable: bool = False
    taken: list[bytes] = field(default_factory=list)
    durable: int = 0
    """How many of the lines were made to last."""
    closed: bool = False
    _told: bool = False
    _chain: Chain = field(default_factory=Chain)

    @property
    def head(self) -> str | None:
        return self._chain.head

    def prepare(self) -> Sequence[Notice]:
        found = [] if self._told else [Notice(OPENED, "a sink")]
        self._told = True
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
        self._told = False

    def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[dict[str, Any]]:
        return parsed(b"".join(self.taken))

    @property
    def told(self) -> list[str]:
        """The names of the events, and what became of sessions."""
        return [event.get("outcome", event["event"]) for event in self.events]
