"""The race between the last look and a session that wakes up: how many statements are hit, by whom.

The real `reaper run` and the usual ways to do it each have a crowd of their own, on one server, at the same
time. Everybody sleeps alike: whoever is asleep is as likely to wake up in this moment as in any other, so
that the share of statements hit is the time between look and signal, divided by the mean time to wake up.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from tests.lab.benchmarks.ground import REAPER, Daemon, Ground
from tests.lab.benchmarks.table import table
from tests.postgres.waiting import until
from tests.system.policies import policy_file

from .account import Account
from .bounds import at_most
from .crowds import Crowds
from .report import Report
from .rivals import Rival, Way, one_liner, read_then_by_pid
from .sleepers import TIMED_OUT, Habits
from .tail import Tail
from .witness import deaths

_OURS: Final = "guarded"
_TIMEOUT: Final = "timed"
_WAYS: Final[Mapping[str, Way]] = {"oneliner": one_liner, "bypid": read_then_by_pid}
_TITLES: Final[Mapping[str, str]] = {
    _OURS: "reaper run",
    "oneliner": "select pg_terminate_backend(pid) from pg_stat_activity where ...",
    "bypid": "select pid from ..., then pg_terminate_backend(pid)",
    _TIMEOUT: "the server's own idle_session_timeout",
}
_BYSTANDER: Final = "bystander"
_TIMES_OUT_SINCE: Final = 14
_IDLE_FOR: Final = 0.02
_WAKES_AFTER: Final = 0.1
_WORKS_FOR: Final = 0.02
_EVERY: Final = 0.1
"""How often a rival looks: seldom, so that most of the machine is left for ours."""
_OUR_CROWD: Final = 32
_THEIR_CROWD: Final = 8
_BYSTANDERS: Final = 100
_DONE: Final = b'"outcome": "terminated"'
_TOLERATED: Final = 0.001
_CHANCE: Final = 3
"""What is left are the microseconds between look and signal, a ten-thousandth of the time that they sleep."""
_LOOK: Final = 0.1
_PATIENCE: Final = 6 * 3600.0
_MICROSECONDS: Final = 1e6


@dataclass(slots=True)
class Toll:
    """What one way of doing it did to its crowd."""

    acts: int = 0
    spared: int = 0
    """Sessions that had woken up, and that the last look let live."""
    executing: int = 0
    """Sessions that were terminated while they executed a statement, by the server's log."""
    crossed: int = 0
    """Sessions whose query was on its way when they were terminated: refused with 57P01, and never begun."""

    @property
    def row(self) -> Sequence[str]:
        """For people."""
        share, bound = (
            (self.executing / self.acts, at_most(self.executing, self.acts)) if self.acts else (0, 1)
        )
        window = share * _WAKES_AFTER * _MICROSECONDS
        return (
            f"{self.acts:,}",
            f"{self.spared:,}",
            f"{self.executing:,}",
            f"{share:.4%}",
            f"{bound:.4%}",
            f"{window:,.0f} us",
            f"{self.crossed:,}",
        )


def race(*, acts: int, seed: int, major: int) -> Report:
    """Let the reaper terminate so many sessions, and the rivals what they get meanwhile."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ground = stack.enter_context(Ground(major, max_connections="400"))
        ground.role("app")
        timeout = {"idle_session_timeout": f"{_IDLE_FOR * 1_000:.0f}ms"} if major >= _TIMES_OUT_SINCE else {}
        ground.role(_TIMEOUT, **timeout)
        dsn = ground.server.dsn
        crowds = stack.enter_context(Crowds(*_habits(ground, seed)))
        daemon = stack.enter_context(_daemon(folder, make_conninfo(dsn, user=REAPER)))
        with ExitStack() as contest:
            rivals = {
                name: contest.enter_context(
                    Rival(way, dsn, idle_for=_IDLE_FOR, like=f"{name}.%", every=_EVERY)
                )
                for name, way in _WAYS.items()
            }
            tail = Tail(folder / "reaper" / "audit.jsonl", _DONE)

            def done() -> bool:
                crowds.check()
                assert daemon.running, "the reaper has ended by itself"
                return tail.count() >= acts

            until(done, within=_PATIENCE, every=_LOOK)
        daemon.stop()
        told = crowds.told()
        account = Account.of([tail.path])
        tolls = {name: Toll() for name in _TITLES}
        died = dict[str, bool]()
        for death in deaths(ground.server.log_path):
            tolls[_crowd_of(death.application)].executing += death.executing
            died[death.application] = death.executing
        for name, toll in tolls.items():
            toll.crossed = sum(not died.get(each) for each in told[name].in_flight)
        tolls[_OURS].acts = len(account.terminated | account.uncertain)
        tolls[_OURS].spared = account.results["woke"]
        for name, rival in rivals.items():
            tolls[name].acts = rival.acts
        tolls[_TIMEOUT].acts = told[_TIMEOUT].ends.get(TIMED_OUT, 0)
        statements = sum(each.statements for each in told.values())
        return Report(
            tables=[_shown(tolls, statements)],
            counted=asdict(tolls[_OURS]),
            broken=_broken(account, tolls[_OURS], died),
        )


def _habits(ground: Ground, seed: int) -> list[Habits]:
    alike = Habits(
        socket=f"{ground.server.folder}/socket/.s.PGSQL.{ground.server.port}",
        role="app",
        database="postgres",
        name=_OURS,
        count=_OUR_CROWD,
        wakes_after=_WAKES_AFTER,
        works_for=_WORKS_FOR,
        comes_back_after=0,
        seed=seed,
    )
    theirs = [
        replace(alike, name=name, count=_THEIR_CROWD, seed=seed + at) for at, name in enumerate(_WAYS, 1)
    ]
    # The server is so quick that most of the machine would go into new sessions, were there no pause.
    timed = replace(alike, name=_TIMEOUT, role=_TIMEOUT, count=2, comes_back_after=_EVERY)
    return [alike, *theirs, timed, replace(alike, name=_BYSTANDER, count=_BYSTANDERS, works_for=0)]


def _daemon(folder: Path, dsn: str) -> Daemon:
    match = {"state": ["idle"], "idle_for": f"{_IDLE_FOR * 1_000:.0f}ms", "application": [f"{_OURS}.*"]}
    policy = {
        "name": "sleepers",
        "mode": "enforce",
        "match": match,
        "pace": {"per_cycle": 1_000},
        "brake": "off",
    }
    servers = [{"name": "server", "dsn": dsn}]
    text = policy_file(policy, interval="1s", precision="10ms", servers=servers)
    return Daemon(folder / "reaper", text, "--listen", "off", level="warning")


def _crowd_of(application: str) -> str:
    return application.partition(".")[0]


def _broken(account: Account, toll: Toll, died: Collection[str]) -> list[str]:
    told = account.disagreements({name for name in died if _crowd_of(name) == _OURS})
    if bystanders := sum(_crowd_of(name) == _BYSTANDER for name in died):
        told.append(f"{bystanders} bystanders terminated")
    if toll.executing > _CHANCE + toll.acts * _TOLERATED:
        told.append(f"{toll.executing} of {toll.acts} hit a statement: that is more than the microseconds")
    return told


def _shown(tolls: Mapping[str, Toll], statements: int) -> str:
    title = (
        f"Race: {statements:,} statements by sessions that sleep for {_WAKES_AFTER * 1_000:.0f} ms (mean), "
        f"limit {_IDLE_FOR * 1_000:.0f} ms, {_BYSTANDERS} bystanders"
    )
    head = ("", "acts", "spared", "hit", "share", "at most (95 %)", "look to signal", "query on its way")
    return table(title, head, [(_TITLES[name], *toll.row) for name, toll in tolls.items()])
