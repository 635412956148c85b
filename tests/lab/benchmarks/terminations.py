"""What terminations cost: a cycle, until all sessions are gone, beside one unguarded statement.

Both take turns on one server, with sessions that are opened anew for each round, among others that stay. The
real reaper is stopped until all sessions are due, so that one cycle terminates all of them; the times are
those of its audit log. The unguarded statement is measured while the reaper is stopped.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, LiteralString, NamedTuple, Self

import psycopg

from reaper.telemetry import events
from tests.lab.clients.crowd import IdleCrowd
from tests.lab.judge.audit_log import OUTCOME
from tests.lab.report import Scale, milliseconds, ratios, table
from tests.lab.world.log import GrowingFile
from tests.lab.world.observe import HttpPort, cpu_seconds
from tests.lab.world.reaper import NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.waiting import until


@dataclass(frozen=True, slots=True, kw_only=True)
class _TerminationsSize:
    terminations: Sequence[int]
    bystanders: int
    rounds: int
    idle_for: float
    """Seconds: longer than it takes to open some sessions and to run two cycles."""
    pages: int
    """Of the table that sessions have read."""


_SIZES: Final[Mapping[Scale, _TerminationsSize]] = {
    Scale.FULL: _TerminationsSize(
        terminations=(1, 100, 1_000), bystanders=1_000, rounds=5, idle_for=5, pages=3_000
    ),
    Scale.SMOKE: _TerminationsSize(terminations=(2,), bystanders=2, rounds=1, idle_for=2, pages=10),
}
_LEAKED: Final = "leaked"
_UNGUARDED: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'leaked' AND state = 'idle' AND state_change < now() - interval '100 ms'
"""
_LEFT: Final[LiteralString] = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'leaked'"
_POLL: Final = 0.002
_BATCH: Final = 100
_ATTEMPTS: Final = 5
_STOCK: Final = (
    "CREATE TABLE stock (line char(7000))",  # one line fills a page
    "ALTER TABLE stock ALTER line SET STORAGE PLAIN",
    "GRANT SELECT ON stock TO PUBLIC",
)
_WORK: Final[Mapping[str, Sequence[str]]] = {
    "that have selected a constant": (),
    "that have read a table and the catalogs": (
        "SELECT count(*) FROM stock",
        "SELECT count(*) FROM pg_attribute JOIN pg_type t ON t.oid = atttypid",
    ),
}


class _TerminationsTaken(NamedTuple):
    """Seconds of one round: until all sessions were gone and until all was logged, and the CPU."""

    gone: float
    done: float
    server: float
    client: float


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table for each kind of sessions."""
    size = _SIZES[scale]
    room = str(size.bystanders + max(size.terminations) + 30)
    with LabServer(major, max_connections=room, autovacuum="off") as server, ExitStack() as stack:
        for role in (_LEAKED, "bystander"):
            server.role(role)
        server.run(*_STOCK, f"INSERT INTO stock SELECT '' FROM generate_series(1, {size.pages})")  # noqa: S608
        bystanders = stack.enter_context(IdleCrowd(server.port))
        bystanders.open(size.bystanders, ["bystander"])
        folder = Path(stack.enter_context(TemporaryDirectory()))
        measured = stack.enter_context(_Measured(server, folder, size))
        for kind, work in _WORK.items():
            title = (
                f"Terminations of sessions {kind}, beside {size.bystanders:,} that stay;\n"
                f"until all are gone and until all is logged; medians of {size.rounds} rounds, ratios in one"
            )
            head = ("", "gone", "all done", "server CPU", "own CPU", "gone to unguarded", "p10", "p90")
            rows = [row for count in size.terminations for row in measured.rows(count, work)]
            yield table(title, head, rows)


class _Measured:
    """The reaper and the connection of the unguarded statement."""

    def __init__(self, server: LabServer, folder: Path, size: _TerminationsSize) -> None:
        self._server = server
        self._size = size
        port = HttpPort()
        leaked = policy(_LEAKED, size.idle_for, role=[_LEAKED], keys=NO_LIMITS)
        text = rules(server.dsn_of(REAPER), leaked, interval=1, min_interval=0.1)
        self._reaper = ReaperProcess(folder / "reaper", text, "--listen", port.at)
        self._port = HttpPort(lambda: self._reaper.running, at=port.at)
        self._audit = GrowingFile(self._reaper.audit)

    def __enter__(self) -> Self:
        self._reaper.start()
        self._port.wait("/readyz")
        self._connection = psycopg.connect(self._server.dsn, autocommit=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._reaper.__exit__()

    def rows(self, count: int, work: Sequence[str]) -> Iterator[Sequence[str]]:
        """The rows of a table for this number of terminations."""
        names = ("one unguarded statement", "the guarded statements alone", "a cycle of the reaper")
        rounds = list[Sequence[_TerminationsTaken]]()
        first = -1 if self._size.rounds > 1 else 0  # a round that prepares the statements
        for number in range(first, self._size.rounds):
            unguarded = self._unguarded(count, work)
            taken = (unguarded, *self._guarded(count, work))
            rounds += [taken] if number >= 0 else []
        for name, each in zip(names, zip(*rounds, strict=True), strict=True):
            medians = (milliseconds(median(part)) for part in zip(*each, strict=True))
            shares = [taken.gone / first[0].gone for taken, first in zip(each, rounds, strict=True)]
            yield (f"{count:,}, {name}", *medians, *ratios(shares))

    def _unguarded(self, count: int, work: Sequence[str]) -> _TerminationsTaken:
        link, backend = self._connection, self._connection.info.backend_pid
        with IdleCrowd(self._server.port) as crowd:
            self._open(crowd, count, work)
            self._reaper.send(SIGSTOP)
            time.sleep(0.15)
            began, server, client = time.monotonic(), cpu_seconds(backend), time.process_time()
            link.cursor(binary=True).execute(_UNGUARDED, prepare=True).fetchall()
            while link.cursor(binary=True).execute(_LEFT, prepare=True).fetchone() != (0,):
                time.sleep(_POLL)
            gone = time.monotonic() - began
            self._reaper.send(SIGCONT)
        return _TerminationsTaken(gone, gone, cpu_seconds(backend) - server, time.process_time() - client)

    def _guarded(self, count: int, work: Sequence[str]) -> tuple[_TerminationsTaken, _TerminationsTaken]:
        """One round: of it the guarded statements alone, and all of it."""
        for _ in range(_ATTEMPTS):
            try:
                with IdleCrowd(self._server.port) as crowd:
                    return self._cycle(crowd, count, work)
            except OSError:  # a busy machine: some were terminated while others were opened
                self._reaper.send(SIGCONT)
        message = "sessions cannot be opened as fast as they become due"
        raise RuntimeError(message)

    def _cycle(
        self, crowd: IdleCrowd, count: int, work: Sequence[str]
    ) -> tuple[_TerminationsTaken, _TerminationsTaken]:
        self._open(crowd, count, work)
        seen = self._port.cycles() + 2  # nothing is terminated at first sight

        def are_seen() -> bool:
            crowd.run()
            return self._port.cycles() >= seen

        until(are_seen, every=0.2)
        self._reaper.send(SIGSTOP)
        crowd.run()
        self._audit.new_lines()
        backend = self._server.reaper_backend("postgres")
        time.sleep(self._size.idle_for + 0.1)
        since, server, client = time.time(), cpu_seconds(backend), cpu_seconds(self._reaper.pid)
        self._reaper.send(SIGCONT)
        acted = self._reaper.wait(events.CYCLE_ACTED, since=since)
        cpu = cpu_seconds(backend) - server, cpu_seconds(self._reaper.pid) - client
        entries = [json.loads(line) for line in self._audit.new_lines()]
        outcomes = [entry for entry in entries if entry["event"] == OUTCOME]
        assert len(outcomes) == count, (len(outcomes), acted.fields)
        began, guarded, gone = (
            min(_times(outcomes, "server_time")),
            min(_times(outcomes, "looked_again_at")),
            max(_times(outcomes, "outcome_at")),
        )
        cycle = _TerminationsTaken(gone - began, acted.at - began, *cpu)
        return _TerminationsTaken(gone - guarded, gone - guarded, *cpu), cycle

    def _open(self, crowd: IdleCrowd, count: int, work: Sequence[str]) -> None:
        """Open them in batches, so that the first are used again before they are due."""
        for opened in range(0, count, _BATCH):
            crowd.open(min(_BATCH, count - opened), [_LEAKED], work=work)
            crowd.run()


def _times(entries: Sequence[Mapping[str, str]], field: str) -> list[float]:
    return [datetime.fromisoformat(entry[field]).timestamp() for entry in entries]
