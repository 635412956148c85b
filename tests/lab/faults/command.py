"""`python -m tests.lab faults`: strike, mend, judge, and print what was found."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from signal import SIGTERM, signal
from typing import Any, Final

import click

from reaper.demo.server import DEFAULT_MAJOR
from tests.lab.benchmarks.machine import Machine

from .campaign import NewFault, Round, rounds
from .chains import verified
from .contract import Choosy, Fetching
from .histories import unread
from .judge import Findings, judge
from .notes import Size
from .place import Place, moved_in
from .records import deeds
from .registry import FAULTS
from .report import shown, tables, violations
from .server_log import terminations
from .world import World

_SIZES: Final[Mapping[str, Size]] = {
    "smoke": Size(
        clients={
            **dict.fromkeys(("pooled", "leaked", "napping"), 2),
            **dict.fromkeys(("forgotten", "visiting", "allowlisted", "protected", "listening"), 1),
            **dict.fromkeys(("locking", "backup", "console", "outsider"), 1),
        },
        blows=2,
    ),
    "full": Size(
        clients={
            "pooled": 6,
            "leaked": 3,
            "napping": 8,
            "visiting": 3,
            **dict.fromkeys(("forgotten", "allowlisted", "listening", "locking"), 2),
            **dict.fromkeys(("protected", "backup", "console", "outsider"), 1),
        },
        blows=6,
    ),
}
_MINUTE: Final = 60
_NOTHING_TO_DO: Final = 2
_TERMINATED: Final = 143


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Which faults meet, and when.")
@click.option("--rounds", "most", type=int, help="So many rounds (default: each fault once).")
@click.option("--minutes", type=float, help="As many rounds as begin within so many minutes.")
@click.option("--only", default="", help="Only faults whose names contain one of these, separated by commas.")
@click.option("--scale", type=click.Choice(tuple(_SIZES)), default="full", show_default=True)
@click.option("--major", type=int, default=DEFAULT_MAJOR, show_default=True, help="Which PostgreSQL.")
@click.option("--keep", is_flag=True, help="Keep the reapers' logs and records.")
@click.option("--list", "listing", is_flag=True, help="Name the faults, and do nothing.")
def main(*, listing: bool, keep: bool, only: str, **options: Any) -> None:  # noqa: ANN401 (what click parsed)
    """Run a campaign; exit code 1 when an invariant did not hold."""
    kinds = [each for each in FAULTS if any(word in each().name for word in only.split(","))]
    if listing or not kinds:
        click.echo("\n".join(each().name for each in kinds or FAULTS))
        sys.exit(0 if kinds else _NOTHING_TO_DO)
    signal(SIGTERM, lambda *_: sys.exit(_TERMINATED))  # what was started is ended on the way out
    folder = Path(tempfile.mkdtemp(prefix="reaper-faults-"))
    machine = Machine()
    broken: list[str] = []
    try:
        place = _entered(folder, kinds)
        broken = asyncio.run(_campaign(place, _possible(kinds, place), **options))
    finally:
        if keep:
            click.echo(f"\nkept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    click.echo(f"\n{machine.described(options['major'])}")
    click.echo(f"\n{shown(broken)}" if broken else "\nEvery invariant held.")
    sys.exit(1 if broken else 0)


def _entered(folder: Path, kinds: Sequence[NewFault]) -> Place:
    for kind in kinds:
        fault = kind()
        if isinstance(fault, Fetching):
            fault.fetch()
    return moved_in(folder)


def _possible(kinds: Sequence[NewFault], place: Place) -> list[NewFault]:
    """Those that this machine allows for; the others are named with what they lack."""
    possible = []
    for kind in kinds:
        fault = kind()
        lacks = fault.missing(place) if isinstance(fault, Choosy) else ""
        if lacks:
            click.echo(f"     {fault.name}: not available: {lacks}")
        else:
            possible.append(kind)
    if not possible:
        sys.exit(_NOTHING_TO_DO)
    return possible


async def _campaign(
    place: Place,
    kinds: Sequence[NewFault],
    *,
    seed: int,
    most: int | None,
    minutes: float | None,
    scale: str,
    major: int,
) -> list[str]:
    if most is None and minutes is None:
        most = len(kinds)
    done: list[Round] = []
    deadline = time.monotonic() + minutes * _MINUTE if minutes else float("inf")
    async with World(major=major, seed=seed, size=_SIZES[scale], place=place) as world:
        async for each in rounds(world, kinds, Random(seed)):  # noqa: S311 (a repeatable choice)
            done.append(each)
            _tell(each)
            if len(done) == most or time.monotonic() > deadline:
                break
        await world.end()
        found = await _found(world)
    for table in tables(world, done, found):
        click.echo(f"\n{table}")
    return violations(world, done, found)


async def _found(world: World) -> Findings:
    records = [path for replica in world.reapers for path in replica.records]
    return judge(
        terminations(world.server_logs),
        world.load.depositions,
        deeds(records),
        by_others=world.by_others,
        chains=await verified(world.reapers),
        unread=await unread(world.reapers),
    )


def _tell(each: Round) -> None:
    back = "never" if each.back_after is None else f"after {each.back_after:.1f} s"
    troubles = "".join(f"\n     {what}" for what in each.troubles)
    click.echo(f"{each.number:4} {' + '.join(each.faults)}: back {back}{troubles}")
