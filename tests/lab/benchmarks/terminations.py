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
from typing import Final, LiteralString, NamedTuple, Self

import psycopg

from reaper.telemetry import events
from tests.lab.clients.crowd import IdleCrowd
from tests.lab.judge.logs import OUTCOME
from tests.lab.report import milliseconds, ratios, table
from tests.lab.world.observe import GrowingFile, cpu_seconds
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


class _TerminationsCost(NamedTuple):
    """Seconds of one round: until all sessions were gone and until all was logged, and the CPU."""

    gone: float
    done: float
    server: float
    client: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _TerminationsRun:
    """The arguments of a run."""

    rounds: int
    idle_for: float


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
    with lab_server(major, max_connections=room, autovacuum="off") as (server, folder), ExitStack() as stack:
        for role in (_LEAKED, "bystander"):
            server.role(role)
        stack.enter_context(crowd := IdleCrowd(server.port))
        crowd.open(bystanders, ["bystander"])
        run = _TerminationsRun(rounds=rounds, idle_for=idle_for)
        measured = stack.enter_context(_Measured(server, folder, run))
        rows = [row for count in counts for row in measured.rows(count)]
    title = (
        f"Terminations beside {bystanders:,} sessions that stay; until all are gone and all is logged;\n"
        f"medians of {rounds} rounds, ratios in one"
    )
    head = ("", "gone", "all done", "server CPU", "own CPU", "gone to unguarded", "p10", "p90")
    yield table(title, head, rows)


class _Measured:
    """The reaper and the connection of the unguarded statement."""

    def __init__(self, server: LabServer, folder: Path, run: _TerminationsRun) -> None:
        self._server = server
        self._run = run
        leaked = policy(_LEAKED, run.idle_for, role=[_LEAKED], keys=NO_LIMITS)
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

    def rows(self, count: int) -> Iterator[Sequence[str]]:
        """The rows of a table for this number of terminations."""
        names = ("one unguarded statement", "a cycle of the reaper")
        rounds = list[Sequence[_TerminationsCost]]()
        first = -1 if self._run.rounds > 1 else 0  # a round that prepares the statements
        for number in range(first, self._run.rounds):
            taken = (self._unguarded(count), self._guarded(count))
            rounds += [taken] if number >= 0 else []
        for name, each in zip(names, zip(*rounds, strict=True), strict=True):
            medians = (milliseconds(median(part)) for part in zip(*each, strict=True))
            shares = [taken.gone / first[0].gone for taken, first in zip(each, rounds, strict=True)]
            yield (f"{count:,}, {name}", *medians, *ratios(shares))

    def _unguarded(self, count: int) -> _TerminationsCost:
        link, backend = self._connection, self._connection.info.backend_pid
        with IdleCrowd(self._server.port) as crowd:
            self._open(crowd, count)
            self._reaper.send(SIGSTOP)
            time.sleep(0.15)
            began, server, client = time.monotonic(), cpu_seconds(backend), time.process_time()
            link.cursor(binary=True).execute(_UNGUARDED, prepare=True).fetchall()
            while link.cursor(binary=True).execute(_LEFT, prepare=True).fetchone() != (0,):
                time.sleep(_POLL)
            gone = time.monotonic() - began
            self._reaper.send(SIGCONT)
        return _TerminationsCost(gone, gone, cpu_seconds(backend) - server, time.process_time() - client)

    def _guarded(self, count: int) -> _TerminationsCost:
        for _ in range(_ATTEMPTS):
            try:
                with IdleCrowd(self._server.port) as crowd:
                    return self._cycle(crowd, count)
            except OSError:  # a busy machine: some were terminated while others were opened
                self._reaper.send(SIGCONT)
        message = "sessions cannot be opened as fast as they become due"
        raise RuntimeError(message)

    def _cycle(self, crowd: IdleCrowd, count: int) -> _TerminationsCost:
        self._open(crowd, count)
        seen = self._reaper.cycles_by_metrics() + 2  # no session is terminated on first sight

        def are_seen() -> bool:
            crowd.run()
            return self._reaper.cycles_by_metrics() >= seen

        until(are_seen, every=0.2)
        self._reaper.send(SIGSTOP)
        crowd.run()
        self._audit.new_lines()
        backend = self._server.reaper_backend("postgres")
        time.sleep(self._run.idle_for + 0.1)
        since, server, client = time.time(), cpu_seconds(backend), self._reaper.cpu()
        self._reaper.send(SIGCONT)
        acted = self._reaper.wait(events.CYCLE_ACTED, since=since)
        cpu = cpu_seconds(backend) - server, self._reaper.cpu() - client
        entries = [json.loads(line) for line in self._audit.new_lines()]
        outcomes = [entry for entry in entries if entry["event"] == OUTCOME]
        assert len(outcomes) == count, (len(outcomes), acted.fields)
        began, gone = min(_times(outcomes, "server_time")), max(_times(outcomes, "outcome_at"))
        return _TerminationsCost(gone - began, acted.at - began, *cpu)

    def _open(self, crowd: IdleCrowd, count: int) -> None:
        """Open them in batches, so that the first are used again before they are due."""
        for opened in range(0, count, _BATCH):
            crowd.open(min(_BATCH, count - opened), [_LEAKED])
            crowd.run()


def _times(entries: Sequence[Mapping[str, str]], field: str) -> list[float]:
    return [datetime.fromisoformat(entry[field]).timestamp() for entry in entries]
