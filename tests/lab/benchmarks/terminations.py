"""What caution costs: cycles that terminate, until all are confirmed gone, beside one unguarded statement.

All ways take turns in one loop on one server, each with sessions of its own that are opened anew for each
round, among others who stay: the statement of a cron job, the guarded statements without a reaper around
them, and a whole cycle. The pace allows all, and the brake is off. Wall counts here, for the end of a
backend is mostly the server's own work; the reaper's sessions are sighted before the clock starts.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, LiteralString, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.policy.plan import Reap, Result
from reaper.policy.time import SECOND
from reaper.postgres.terminator import Settled
from tests.lab.report import Scale
from tests.postgres.sandbox import Role
from tests.system.policies import leaked, policy_file

from .crowd import Crowd
from .ground import REAPER, Ground
from .proc import cpu_seconds
from .shift import Shift
from .table import figure, quantile, table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    terminations: Sequence[int]
    bystanders: int
    rounds: int
    pages: int
    """Of the table that sessions have read which have worked."""


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(terminations=(1, 100, 1_000), bystanders=1_000, rounds=9, pages=3_000),
    Scale.QUICK: _Size(terminations=(1, 100), bystanders=200, rounds=8, pages=3_000),
    Scale.SMOKE: _Size(terminations=(2,), bystanders=2, rounds=1, pages=10),
}
_LEAKED: Final = "leaked"
_IDLE_FOR: Final = 0.1
_NAIVE: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'leaked' AND state = 'idle' AND state_change < now() - interval '100 ms'
"""
_LEFT: Final[LiteralString] = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'leaked'"
_PAUSE: Final = 0.002
_HEAD: Final = ("", "seen gone", "all done", "server CPU", "own CPU", "gone to unguarded", "p10", "p90")
_UNGUARDED: Final = "one unguarded statement"
_STOCK: Final[Sequence[LiteralString]] = (
    "CREATE TABLE stock (line char(7000))",  # a line fills a page
    "ALTER TABLE stock ALTER line SET STORAGE PLAIN",
    "GRANT SELECT ON stock TO PUBLIC",
)
_WORK: Final = (
    "SELECT count(*) FROM stock",
    "SELECT count(*) FROM pg_attribute JOIN pg_type t ON t.oid = atttypid",
)
_LIVES: Final[Mapping[str, Sequence[str]]] = {
    "that have selected a constant, the cheapest there are": (),
    "that have read a table and the catalogs, as an application's have": _WORK,
}


class _Taken(NamedTuple):
    """Seconds of one round: until all were seen gone and until all was done, and the CPU that it took."""

    gone: float
    done: float
    server: float
    client: float


Way = Callable[[Sequence[Reap]], Awaitable[float]]
"""Ends all of these, and tells when the last one was seen gone, by the clock of this host."""


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table: a row for each number of terminations and way."""
    size = _SIZES[scale]
    room = str(size.bystanders + max(size.terminations) + 30)
    with Ground(major, max_connections=room, autovacuum="off") as ground, ExitStack() as stack:
        for role in (_LEAKED, "bystander"):
            ground.role(role)
        for statement in _STOCK:
            ground.admin.execute(statement)
        ground.admin.execute("INSERT INTO stock SELECT '' FROM generate_series(1, %s)", (size.pages,))
        bystanders = stack.enter_context(Crowd(ground.server.port))
        bystanders.open(size.bystanders, roles=["bystander"], applications=20)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for lives, work in _LIVES.items():
            title = (
                f"Terminations of sessions {lives}, beside {size.bystanders:,}\n"
                f"that stay, until all are seen gone and until it is recorded, counted and told; medians of\n"
                f"{size.rounds} rounds, ratios of the same round"
            )
            rows = [
                row
                for count in size.terminations
                for row in asyncio.run(_rows(ground, folder, count, size, work))
            ]
            yield table(title, _HEAD, rows)


async def _rows(
    ground: Ground, folder: Path, count: int, size: _Size, work: Sequence[str]
) -> Sequence[Sequence[str]]:
    dsn = make_conninfo(ground.server.dsn, user=REAPER)
    policy = leaked(
        Role(_LEAKED, ""), idle_for=f"{1000 * _IDLE_FOR:g}ms", max_per_cycle=count, safety_limit="none"
    )
    rounds = list[Mapping[str, _Taken]]()
    with psycopg.connect(dsn, autocommit=True) as link:
        async with Shift(dsn, policy_file(policy), folder / "audit.jsonl") as shift:
            ways: dict[str, tuple[int, Way]] = {
                _UNGUARDED: (link.info.backend_pid, partial(_unguarded, link)),
                "the guarded statements alone": (shift.backend, partial(_acts, shift)),
                "a cycle of the reaper": (shift.backend, partial(_cycle, shift)),
            }
            for number in range(-1, size.rounds):  # the first prepares the statements
                taken = dict[str, _Taken]()
                for name in _turned(list(ways), number):
                    with Crowd(ground.server.port) as crowd:
                        crowd.open(count, roles=[_LEAKED], applications=20, work=work)
                        await asyncio.sleep(_IDLE_FOR)
                        await shift.sight()
                        reaps = await shift.condemned()
                        assert len(reaps) == count, reaps
                        taken[name] = await _taken(*ways[name], reaps)
                if number >= 0:
                    rounds.append(taken)
    return [(f"{count:,}, {name}", *_figures(name, rounds)) for name in ways]


def _turned(names: Sequence[str], number: int) -> Sequence[str]:
    """Each comes first as often as the others."""
    turn = number % len(names)
    return [*names[turn:], *names[:turn]]


async def _taken(backend: int, way: Way, reaps: Sequence[Reap]) -> _Taken:
    clock = time.time()
    began, server, client = time.monotonic(), cpu_seconds(backend), time.process_time()
    gone = await way(reaps)
    done = time.monotonic() - began
    return _Taken(gone - clock, done, cpu_seconds(backend) - server, time.process_time() - client)


async def _unguarded(link: psycopg.Connection, _: Sequence[Reap]) -> float:
    link.cursor(binary=True).execute(_NAIVE, prepare=True).fetchall()
    while link.cursor(binary=True).execute(_LEFT, prepare=True).fetchone() != (0,):
        time.sleep(_PAUSE)  # noqa: ASYNC251  (nobody else is on this loop)
    return time.time()


async def _acts(shift: Shift, reaps: Sequence[Reap]) -> float:
    return _last_seen(reaps, await shift.act(reaps))


async def _cycle(shift: Shift, reaps: Sequence[Reap]) -> float:
    return _last_seen(reaps, (await shift.cycle()).settled)


def _last_seen(reaps: Sequence[Reap], settled: Settled) -> float:
    ends = [outcome.at for _, outcome in settled if outcome.result is Result.TERMINATED and outcome.at]
    assert len(ends) == len(reaps), settled
    return max(ends) / SECOND


def _figures(name: str, rounds: Sequence[Mapping[str, _Taken]]) -> list[str]:
    medians = [median(part) for part in zip(*(each[name] for each in rounds), strict=True)]
    ratios = [each[name].gone / each[_UNGUARDED].gone for each in rounds]
    spread = ["", ""] if name == _UNGUARDED else [f"{quantile(ratios, share):.2f}" for share in (0.1, 0.9)]
    return [*(figure(1000 * part, "ms") for part in medians), f"{median(ratios):.2f}", *spread]
