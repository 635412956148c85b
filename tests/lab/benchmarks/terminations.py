"""What terminations cost: a cycle, until all sessions are gone, beside one unguarded statement.

Both take turns on one server, with sessions that are opened anew for each round, among others that stay. The
real reaper is stopped until all sessions are due, so that one cycle terminates all of them; the times are
those of its audit log. The unguarded statement is measured while the reaper is stopped.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from statistics import median
from typing import Final, LiteralString, NamedTuple, Self

import psycopg

from reaper.telemetry import events
from tests.lab.clients.crowd import IdleCrowd
from tests.lab.judge.logs import OUTCOME
from tests.lab.report import milliseconds, ratios, table
from tests.lab.world.observe import GrowingFile
from tests.lab.world.reaper import NO_LIMITS, PORT, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer, lab_server
from tests.postgres.waiting import until

_LEAKED: Final = "leaked"
_UNGUARDED: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'leaked' AND state = 'idle' AND state_change < now() - interval '100 ms'
"""
_LEFT: Final[LiteralString] = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'leaked'"
_POLL: Final = 0.002
_BATCH: Final = 100
_ATTEMPTS: Final = 5


class _Gone(NamedTuple):
    """Seconds of one round: until all sessions were gone, and until all was logged."""

    gone: float
    done: float


def terminations(
    *,
    major: int,
    counts: tuple[int, ...] = (1, 100, 1_000),
    bystanders: int = 1_000,
    rounds: int = 5,
    idle_for: float = 5.0,
) -> Iterator[str]:
    """Terminations until all sessions are gone, beside one unguarded statement.

    The limit (seconds) is longer than it takes to open a hundred sessions and to run two cycles.
    """
    room = str(bystanders + max(counts) + 30)
    rows = list[Sequence[str]]()
    with (
        lab_server(major, max_connections=room, autovacuum="off") as (server, folder),
        IdleCrowd(server.port) as crowd,
    ):
        for role in (_LEAKED, "bystander"):
            server.role(role)
        crowd.open(bystanders, ["bystander"])
        with _Measured(server, folder, idle_for) as measured:
            for count in counts:
                rows += measured.rows(count, rounds)
    title = (
        f"Terminations beside {bystanders:,} sessions that stay; until all are gone and all is logged;\n"
        f"medians of {rounds} rounds, ratios in one"
    )
    yield table(title, ("", "gone", "all done", "gone to unguarded", "p10", "p90"), rows)


class _Measured:
    """The reaper and the connection of the unguarded statement."""

    def __init__(self, server: LabServer, folder: Path, idle_for: float) -> None:
        self._server = server
        self._idle_for = idle_for
        leaked = policy(_LEAKED, idle_for, role=[_LEAKED], keys=NO_LIMITS)
        text = rules(server.dsn_of(REAPER), leaked, interval=1, min_interval=0.1)
        self._reaper = ReaperProcess(folder / "reaper", text, listen=PORT)
        self._audit = GrowingFile(self._reaper.audit)

    def __enter__(self) -> Self:
        self._reaper.start()
        self._reaper.answers()
        self._connection = psycopg.connect(self._server.dsn, autocommit=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._reaper.__exit__()

    def rows(self, count: int, rounds: int) -> Iterator[Sequence[str]]:
        """The rows of a table for this number of terminations."""
        taken = [(self._unguarded(count), self._guarded(count)) for _ in range(rounds + 1)]
        taken = taken[1:]  # the first round prepares the statements
        names = ("one unguarded statement", "a cycle of the reaper")
        for name, each in zip(names, zip(*taken, strict=True), strict=True):
            medians = (milliseconds(median(part)) for part in zip(*each, strict=True))
            shares = [one.gone / first.gone for one, (first, _) in zip(each, taken, strict=True)]
            yield (f"{count:,}, {name}", *medians, *ratios(shares))

    def _unguarded(self, count: int) -> _Gone:
        cursor = self._connection.cursor(binary=True)
        with IdleCrowd(self._server.port) as crowd:
            self._open(crowd, count)
            self._reaper.send(SIGSTOP)
            time.sleep(0.15)
            began = time.monotonic()
            cursor.execute(_UNGUARDED, prepare=True).fetchall()
            while cursor.execute(_LEFT, prepare=True).fetchone() != (0,):
                time.sleep(_POLL)
            gone = time.monotonic() - began
            self._reaper.send(SIGCONT)
        return _Gone(gone, gone)

    def _guarded(self, count: int) -> _Gone:
        for _ in range(_ATTEMPTS):
            try:
                with IdleCrowd(self._server.port) as crowd:
                    return self._cycle(crowd, count)
            except OSError:  # a busy machine: some were terminated while others were opened
                self._reaper.send(SIGCONT)
        message = "sessions cannot be opened as fast as they become due"
        raise RuntimeError(message)

    def _cycle(self, crowd: IdleCrowd, count: int) -> _Gone:
        self._open(crowd, count)
        seen = self._reaper.cycles_by_metrics() + 2  # no session is terminated on first sight

        def are_seen() -> bool:
            crowd.run()
            return self._reaper.cycles_by_metrics() >= seen

        until(are_seen, every=0.2)
        self._reaper.send(SIGSTOP)
        crowd.run()
        self._audit.new_lines()
        time.sleep(self._idle_for + 0.1)
        since = time.time()
        self._reaper.send(SIGCONT)
        acted = self._reaper.wait(events.CYCLE_ACTED, since=since)
        entries = [json.loads(line) for line in self._audit.new_lines()]
        outcomes = [entry for entry in entries if entry["event"] == OUTCOME]
        assert len(outcomes) == count, (len(outcomes), acted.fields)
        began, gone = min(_times(outcomes, "server_time")), max(_times(outcomes, "outcome_at"))
        return _Gone(gone - began, acted.at - began)

    def _open(self, crowd: IdleCrowd, count: int) -> None:
        """Open them in batches, so that the first are used again before they are due."""
        for opened in range(0, count, _BATCH):
            crowd.open(min(_BATCH, count - opened), [_LEAKED])
            crowd.run()


def _times(entries: Sequence[Mapping[str, str]], field: str) -> list[float]:
    return [datetime.fromisoformat(entry[field]).timestamp() for entry in entries]
