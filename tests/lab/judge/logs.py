"""The server's log and counters, and the audit log, read without the product's own reader and compared."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from tests.lab.clients.session import TERMINATED, SessionKey
from tests.lab.world.server import LabServer

COUNTS_SINCE: Final = 14
"""The first major that counts terminated sessions."""
_MILLISECOND: Final = 1_000
_TIME, _SESSION, _SEVERITY, _STATE, _MESSAGE, _QUERY, _APPLICATION, _BACKEND = 0, 5, 11, 12, 13, 19, 22, 23
_OF_A_CLIENT: Final = (TERMINATED, "FATAL", "client backend")
_SHUTDOWN: Final = ("received fast shutdown request", "received immediate shutdown request")
_READY: Final = "database system is ready to accept connections"
_KILLED: Final = "SELECT sessions_killed FROM pg_stat_database WHERE datname = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminationByServer:
    """A session that the server ended at a command of an administrator, and not because of a shutdown."""

    key: SessionKey
    at: int
    """When, in microseconds: the end of the millisecond in the log."""
    application: str
    executing: bool = False
    """True if it executed a statement."""

    @property
    def seconds(self) -> float:
        """When, in seconds since 1970."""
        return self.at / 1_000_000


def terminations(*logs: Path) -> Iterator[TerminationByServer]:
    """All terminations in these CSV logs, each log in its order."""
    for path in logs:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            yield from _terminations(row for row in csv.reader(lines) if len(row) > _BACKEND)


def terminated(server: LabServer, prefix: str = "") -> list[TerminationByServer]:
    """The terminations in this server's log so far, of applications with this prefix."""
    server.flush_log()
    return [each for each in terminations(server.csv_log) if each.application.startswith(prefix)]


def sessions_killed(server: LabServer, database: str) -> int:
    """The server's own counter of terminated sessions."""
    return sum(int(count) for (count,) in server.query(_KILLED, database))


def _terminations(rows: Iterable[list[str]]) -> Iterator[TerminationByServer]:
    shutting_down = False
    for row in rows:
        if row[_MESSAGE] in _SHUTDOWN:
            shutting_down = True
        elif row[_MESSAGE] == _READY:
            shutting_down = False
        elif not shutting_down and (row[_STATE], row[_SEVERITY], row[_BACKEND]) == _OF_A_CLIENT:
            began, _, pid = row[_SESSION].partition(".")
            yield TerminationByServer(
                key=SessionKey(int(began, 16), int(pid, 16)),
                at=_microseconds(row[_TIME]),
                application=row[_APPLICATION],
                executing=bool(row[_QUERY]),
            )


def _microseconds(text: str) -> int:
    moment = datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000) * _MILLISECOND + _MILLISECOND - 1


INTENT: Final = "session.intent"
OUTCOME: Final = "session.outcome"
_UNCERTAIN: Final = frozenset({"unknown", "signalled"})


@dataclass(slots=True, kw_only=True)
class LoggedIntent:
    """One intent and its outcome."""

    run: str
    key: SessionKey
    application: str
    seen_at: datetime
    """When its cycle saw the session, by the server's clock."""
    written: float = 0.0
    """When it was written, by the clock of the reaper's host."""
    outcome: str | None = None
    orphaned: bool = False
    """True if a later run wrote the outcome, because its own had ended."""
    until: datetime | None = None
    """When the outcome was seen, by the server's clock; None if it was not seen."""
    checked_again: datetime | None = None
    """When the guard checked again, by the server's clock; None if no signal is known of."""


@dataclass(slots=True)
class AuditLog:
    """The intents to terminate in some files, and what is wrong with the lines."""

    intents: dict[str, LoggedIntent] = field(default_factory=dict)
    results: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    _numbers: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def read(cls, *files: Path) -> Self:
        """The audit log in these files, in any order."""
        present = [file for file in files if file.exists()]
        return cls.of([line for file in present for line in file.read_bytes().splitlines(keepends=True)])

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Self:
        """The audit log in these lines."""
        log = cls()
        entries = [entry for line in lines if (entry := log._entry(line))]
        # Intents first: files that were moved aside are read in any order.
        for entry in sorted(entries, key=lambda entry: entry["event"] != INTENT):
            if entry["event"] == INTENT:
                log.intents.setdefault(entry["intent"], _intent(entry))
            elif entry["event"] == OUTCOME and entry["intent"] in log.intents:
                log.results[entry["outcome"]] += 1
                _settle(log.intents[entry["intent"]], entry)
        return log

    @property
    def open(self) -> list[LoggedIntent]:
        """Intents without an outcome."""
        return [intent for intent in self.intents.values() if intent.outcome is None]

    @property
    def missing(self) -> int:
        """The number of missing lines, by the numbers of the others."""
        return sum(max(numbers) - len(numbers) for numbers in self._numbers.values())

    def keys(self, *outcomes: str) -> set[SessionKey]:
        """The sessions with one of these outcomes, or all intended ones."""
        return {each.key for each in self.intents.values() if not outcomes or each.outcome in outcomes}

    def disagreements(self, terminations: Iterable[TerminationByServer]) -> list[str]:
        """Everything in which this audit log and the server's log differ, in sentences."""
        ended = {each.key: each.application for each in terminations}
        names = {each.key: each.application for each in self.intents.values()} | ended
        found = {
            "terminated without an intent": ended.keys() - self.keys(),
            "terminated by the server's log, and not by the audit log": (
                ended.keys() - self.keys("terminated", *_UNCERTAIN)
            ),
            "terminated by the audit log, and not by the server's": self.keys("terminated") - ended.keys(),
        }
        differences = [
            f"{len(keys)} {what}: {sorted(names[key] for key in keys)[:5]}"
            for what, keys in found.items()
            if keys
        ]
        return [*differences, *([f"{len(self.open)} intents without an outcome"] if self.open else [])]

    def counted(self, terminations: Iterable[TerminationByServer]) -> Counter[str]:
        """The figures of the comparison."""
        ended, known = {each.key for each in terminations}, self.keys("terminated")
        uncertain = self.keys(*_UNCERTAIN) - known
        counts = {
            "sessions terminated, by the server's log": len(ended),
            "of these without an intent": len(ended - self.keys()),
            "of these logged as terminated": len(ended & known),
            "of these logged as unknown or signalled": len(ended & uncertain),
            "intents": len(self.intents),
            "intents without an outcome": len(self.open),
            "lines that are missing": self.missing,
            "skipped by the guard, because the session woke up": self.results["changed"],
            "torn lines": self.torn,
        }
        return Counter(counts)

    def _entry(self, line: bytes) -> Mapping[str, Any] | None:
        """The entry in a line; None if it is torn, or is not about a session that may be terminated."""
        if not line.strip():
            return None
        try:
            entry: dict[str, Any] = json.loads(line)
            self._numbers[entry["run"]].add(entry["seq"])
        except (ValueError, LookupError, TypeError):
            self.torn += 1
            return None
        acts = entry.get("intent") and entry.get("mode") == "enforce" and not entry.get("dry_run")
        return entry if acts else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _intent(entry: Mapping[str, Any]) -> LoggedIntent:
    began = datetime.fromisoformat(entry["backend_start"])
    return LoggedIntent(
        run=entry["run"],
        key=SessionKey(int(began.timestamp()), entry["pid"]),
        application=entry["application"] or "",
        seen_at=datetime.fromisoformat(entry["server_time"]),
        written=datetime.fromisoformat(entry["time"]).timestamp(),
    )


def _settle(intent: LoggedIntent, entry: Mapping[str, Any]) -> None:
    if intent.outcome in {None, "unknown"}:  # a known outcome counts more than an unknown one
        intent.outcome = entry["outcome"]
        intent.orphaned = entry["run"] != intent.run
        intent.until = _moment(entry.get("outcome_at")) or intent.until
        intent.checked_again = _moment(entry.get("looked_again_at")) or intent.checked_again
