"""What caution costs: cycles that terminate, until all are confirmed gone, beside one unguarded statement.

Both ways take turns in one loop on one server, each with sessions of its own that are opened anew for each
round, among others who stay. The pace allows all, and the brake is off. Wall counts here, for the end of a
backend is mostly the server's own work; the reaper's sessions are sighted before the clock starts.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, LiteralString, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from reaper.policy.spans import SECOND
from reaper.policy.verdict import Result
from tests.postgres.sandbox import Role
from tests.system.policies import leaked, policy_file

from .crowd import Crowd
from .ground import REAPER, Ground
from .proc import cpu_seconds
from .scale import Scale
from .shift import Shift
from .table import figure, quantile, table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    terminations: Sequence[int]
    bystanders: int
    rounds: int


_SIZES: Final[Mapping[Scale, _Size]] = {
    Scale.FULL: _Size(terminations=(1, 100, 1_000), bystanders=1_000, rounds=15),
    Scale.QUICK: _Size(terminations=(1, 100), bystanders=200, rounds=8),
    Scale.SMOKE: _Size(terminations=(2,), bystanders=2, rounds=1),
}
_GUARDED: Final = "guarded"
_UNGUARDED: Final = "unguarded"
_IDLE_FOR: Final = 0.1
_NAIVE: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = 'unguarded' AND state = 'idle' AND state_change < now() - interval '100 ms'
"""
_LEFT: Final[LiteralString] = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'unguarded'"
_PAUSE: Final = 0.002


class _Taken(NamedTuple):
    """Seconds of one round: until all were seen gone and until all was done, and the CPU that it took."""

    gone: float
    done: float
    server: float
    client: float


def run(scale: Scale, major: int) -> Iterator[str]:
    """One table: a row for each number of terminations and way."""
    size = _SIZES[scale]
    room = str(size.bystanders + 2 * max(size.terminations) + 30)
    with Ground(major, max_connections=room, autovacuum="off") as ground, ExitStack() as stack:
        for role in (_GUARDED, _UNGUARDED, "bystander"):
            ground.role(role)
        bystanders = stack.enter_context(Crowd(ground.server.port))
        bystanders.open(size.bystanders, roles=["bystander"], applications=20)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [row for count in size.terminations for row in asyncio.run(_rows(ground, folder, count, size))]
    title = (
        f"Terminations beside {size.bystanders:,} sessions that stay, until all are seen gone and until it\n"
        f"is recorded, counted and told; medians of {size.rounds} rounds, ratios of the same round"
    )
    head = ("", "seen gone", "all done", "server CPU", "own CPU", "gone to unguarded", "p10", "p90")
    yield table(title, head, rows)


async def _rows(ground: Ground, folder: Path, count: int, size: _Size) -> Sequence[Sequence[str]]:
    dsn = make_conninfo(ground.server.dsn, user=REAPER)
    policy = leaked(
        Role(_GUARDED, ""), idle_for=f"{1000 * _IDLE_FOR:g}ms", pace={"per_cycle": count}, brake="off"
    )
    guarded, naive = list[_Taken](), list[_Taken]()
    with psycopg.connect(dsn, autocommit=True) as link:
        async with Shift(dsn, policy_file(policy), folder / f"{count}.jsonl") as shift:
            for number in range(-1, size.rounds):  # the first prepares the statements
                with Crowd(ground.server.port) as crowd:
                    crowd.open(count, roles=[_GUARDED], applications=20)
                    crowd.open(count, roles=[_UNGUARDED], applications=20)
                    await asyncio.sleep(_IDLE_FOR)
                    taken = await _both(shift, link, count, first=number % 2 == 0)
                if number >= 0:
                    guarded.append(taken[0])
                    naive.append(taken[1])
    ratios = [one.gone / other.gone for one, other in zip(guarded, naive, strict=True)]
    spread = [f"{each:.2f}" for each in (median(ratios), quantile(ratios, 0.1), quantile(ratios, 0.9))]
    return [
        (f"{count:,}, one unguarded statement", *_figures(naive), "1.00", "", ""),
        (f"{count:,}, a cycle of the reaper", *_figures(guarded), *spread),
    ]


async def _both(shift: Shift, link: psycopg.Connection, count: int, *, first: bool) -> tuple[_Taken, _Taken]:
    await shift.sight()
    if first:
        guarded = await _guarded(shift, count)
        return guarded, await _unguarded(link)
    naive = await _unguarded(link)
    return await _guarded(shift, count), naive


async def _guarded(shift: Shift, count: int) -> _Taken:
    clock = time.time()  # which is the server's as well
    began, server, client = time.monotonic(), cpu_seconds(shift.backend), time.process_time()
    cycle = await shift.cycle()
    done = time.monotonic() - began
    server, client = cpu_seconds(shift.backend) - server, time.process_time() - client
    assert cycle.results == {Result.TERMINATED: count}, cycle.results
    seen = max(outcome.at or 0 for _, outcome in cycle.settled)
    return _Taken(seen / SECOND - clock, done, server, client)


async def _unguarded(link: psycopg.Connection) -> _Taken:
    backend = link.info.backend_pid
    began, server, client = time.monotonic(), cpu_seconds(backend), time.process_time()
    link.cursor(binary=True).execute(_NAIVE, prepare=True).fetchall()
    while link.cursor(binary=True).execute(_LEFT, prepare=True).fetchone() != (0,):
        time.sleep(_PAUSE)  # noqa: ASYNC251  (nobody else is on this loop)
    gone = time.monotonic() - began
    return _Taken(gone, gone, cpu_seconds(backend) - server, time.process_time() - client)


def _figures(taken: Sequence[_Taken]) -> list[str]:
    return [figure(1000 * median(part), "ms") for part in zip(*taken, strict=True)]
