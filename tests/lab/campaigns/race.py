"""The race between the guard and a session that wakes up: how many statements are hit, and by which tool.

The real `reaper run`, the usual statement and the server's own timeout each have clients of their own on one
server, at the same time. All sleep alike: a sleeping session is as likely to wake up at this moment as at any
other, so the share of statements that are hit is the time between check and signal, divided by the mean time
to wake up.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple, Self

import psycopg

from tests.lab.clients.session import TIMED_OUT
from tests.lab.clients.sleepers import Habits, Sleepers
from tests.lab.judge.logs import AuditLog, TerminationByServer, terminated
from tests.lab.report import Report, at_most, table
from tests.lab.world.observe import LineCounter
from tests.lab.world.reaper import NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer, lab_server
from tests.postgres.waiting import until

_REAPER, _ONE_LINER, _TIMEOUT = "guarded", "oneliner", "timed"
_BYSTANDER: Final = "bystander"
_TITLES: Final[Mapping[str, str]] = {
    _REAPER: "reaper run",
    _ONE_LINER: "select pg_terminate_backend(pid) from pg_stat_activity where ...",
    _TIMEOUT: "the server's own idle_session_timeout",
}
_TERMINATE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE state = 'idle' AND now() - state_change > %s * interval '1 second' AND application_name LIKE %s
"""
_TIMES_OUT_SINCE: Final = 14
_IDLE_FOR: Final = 0.02
_WAKES_AFTER: Final = 0.1
_EVERY: Final = 0.1
"""Between two statements of the one-liner: most of the machine is left for the reaper."""
_BYSTANDERS: Final = 100
_TOLERATED: Final = 0.001
_CHANCE: Final = 3
"""What remains are the microseconds between check and signal, a ten-thousandth of the time of sleep."""
_PATIENCE: Final = 6 * 3600.0


class HitCounts(NamedTuple):
    """What one tool did to its clients."""

    acts: int
    skipped: int
    """Sessions that had woken up, and that the guard skipped."""
    executing: int
    """Sessions that executed a statement when they were terminated, by the server's log."""
    crossed: int
    """Sessions with a query on its way: refused with 57P01, and never begun."""


class _OneLiner(Thread):
    """Terminates idle sessions with the usual statement, again and again."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.acts = 0
        self._dsn = dsn
        self._enough = Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        """Work until the race is over."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._enough.wait(_EVERY):
                rows = connection.execute(_TERMINATE, (_IDLE_FOR, f"{_ONE_LINER}.%"))
                self.acts += sum(bool(sent) for (sent,) in rows)


def race(*, major: int, acts: int = 100_000, seed: int = 20261120) -> Report:
    """Terminate sessions that wake up at random, beside the usual statement and the server's own timeout."""
    with lab_server(major, max_connections="400") as (server, folder), ExitStack() as stack:
        timeout = {"idle_session_timeout": f"{_IDLE_FOR * 1_000:.0f}ms"} if major >= _TIMES_OUT_SINCE else {}
        server.role(_TIMEOUT, **timeout)
        sleepers = stack.enter_context(Sleepers(*_habits(server.socket, seed)))
        reaper = stack.enter_context(_reaper(folder, server))
        with _OneLiner(server.dsn) as one_liner:
            counter = LineCounter(reaper.audit, b'"outcome": "terminated"')

            def done() -> bool:
                sleepers.check()
                assert reaper.running, "the reaper has ended by itself"
                return counter.count() >= acts

            until(done, within=_PATIENCE, every=0.1)
        reaper.stop()
        summaries = sleepers.finish()
        log, ended = AuditLog.read(reaper.audit), terminated(server)
    executing = Counter(_tool(each) for each in ended if each.executing)
    hit = {each.application for each in ended if each.executing}
    acts_of = {
        _REAPER: len(log.keys("terminated", "unknown", "signalled")),
        _ONE_LINER: one_liner.acts,
        _TIMEOUT: summaries[_TIMEOUT].ends.get(TIMED_OUT, 0),
    }
    counts = {
        name: HitCounts(
            acts=acts_of[name],
            skipped=log.results["changed"] if name == _REAPER else 0,
            executing=executing[name],
            crossed=len(set(summaries[name].unanswered) - hit),
        )
        for name in _TITLES
    }
    statements = sum(each.statements for each in summaries.values())
    return Report(
        tables=[_shown(counts, statements)],
        counted=counts[_REAPER]._asdict(),
        broken=_broken(log, counts[_REAPER], ended),
    )


def _habits(socket: str, seed: int) -> list[Habits]:
    alike = Habits(
        socket=socket,
        name=_REAPER,
        count=32,
        seed=seed,
        wakes_after=_WAKES_AFTER,
        works_for=0.02,
        returns_after=0,
    )
    other = replace(alike, name=_ONE_LINER, count=8, seed=seed + 1)
    # The server is so quick that without a pause most of the machine would go into new sessions.
    timed = replace(alike, name=_TIMEOUT, role=_TIMEOUT, count=2, returns_after=_EVERY)
    return [alike, other, timed, replace(alike, name=_BYSTANDER, count=_BYSTANDERS, works_for=0)]


def _reaper(folder: Path, server: LabServer) -> ReaperProcess:
    sleepers = policy("sleepers", _IDLE_FOR, application=[f"{_REAPER}.*"], keys=NO_LIMITS)
    text = rules(server.dsn_of(REAPER), sleepers, interval=1, min_interval=0.01)
    return ReaperProcess(folder / "reaper", text, log_level="warning")


def _tool(each: TerminationByServer) -> str:
    return each.application.partition(".")[0]


def _broken(log: AuditLog, counts: HitCounts, ended: Collection[TerminationByServer]) -> list[str]:
    broken = log.disagreements(each for each in ended if _tool(each) == _REAPER)
    if bystanders := sum(_tool(each) == _BYSTANDER for each in ended):
        broken.append(f"{bystanders} bystanders terminated")
    if counts.executing > _CHANCE + counts.acts * _TOLERATED:
        broken.append(f"{counts.executing} of {counts.acts} hit a statement: too many for the microseconds")
    return broken


def _shown(counts: Mapping[str, HitCounts], statements: int) -> str:
    title = (
        f"Race: {statements:,} statements by sessions that sleep for {_WAKES_AFTER * 1_000:.0f} ms (mean), "
        f"limit {_IDLE_FOR * 1_000:.0f} ms, {_BYSTANDERS} bystanders"
    )
    head = ("", "acts", "skipped", "hit", "share", "at most (95 %)", "check to signal", "query on its way")
    return table(title, head, [_row(_TITLES[name], each) for name, each in counts.items()])


def _row(name: str, counts: HitCounts) -> Sequence[str]:
    acts, skipped, executing, crossed = counts
    share = executing / acts if acts else 0.0
    shares = (f"{share:.4%}", f"{at_most(executing, acts):.4%}", f"{share * _WAKES_AFTER * 1e6:,.0f} us")
    return (name, *(f"{count:,}" for count in (acts, skipped, executing)), *shares, f"{crossed:,}")
