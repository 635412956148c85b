"""`python -m tests.lab faults`: rounds of faults, their judgement, and the tables."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import click

from reaper.demo.server import DEFAULT_MAJOR
from tests.lab.judge.logs import AuditLog, terminations
from tests.lab.judge.terminations import judge
from tests.lab.report import Machine
from tests.lab.world.isolation import Isolation, isolate

from . import of_clocks, of_files, of_link, of_reaper, of_server
from .report import FaultRun
from .rounds import Fault, Round, rounds
from .world import FaultWorld, LoadSize

_FAULTS: Final[Sequence[Fault]] = (
    *(*of_server.FAULTS, *of_reaper.FAULTS),
    *(*of_link.FAULTS, *of_clocks.FAULTS, *of_files.FAULTS),
)
_FEW: Final = dict.fromkeys(
    ["forgotten", "job", "allowlisted", "protected", "listening", "locking", "backup", "console", "outsider"],
    1,
)
_MORE: Final = dict.fromkeys(("forgotten", "allowlisted", "listening", "locking"), 2)
_SIZES: Final[Mapping[str, LoadSize]] = {
    "smoke": LoadSize(clients={**_FEW, "pooled": 2, "leaked": 2, "napping": 2}, repeats=2),
    "full": LoadSize(clients={**_FEW, **_MORE, "pooled": 6, "leaked": 3, "napping": 8, "job": 3}, repeats=6),
}
_MINUTE: Final = 60
_NOTHING_TO_DO: Final = 2
_MAX_SHOWN: Final = 20


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses the faults and their moments.")
@click.option("--rounds", "count", type=int, help="This many rounds (default: each fault once).")
@click.option("--minutes", type=float, help="As many rounds as begin within these minutes.")
@click.option("--only", default="", help="Only faults whose names contain one of these words (a,b).")
@click.option("--scale", type=click.Choice(tuple(_SIZES)), default="full", show_default=True)
@click.option("--major", default=DEFAULT_MAJOR, show_default=True, help="The version of PostgreSQL.")
@click.option("--keep", is_flag=True, help="Keep the logs and audit logs.")
@click.option("--list", "listing", is_flag=True, help="List the faults, and do nothing.")
def faults(*, listing: bool, keep: bool, only: str, **options: Any) -> None:  # noqa: ANN401 (what click parsed)
    """Let everything fail under load; exit code 1 if an invariant did not hold."""
    chosen = [each for each in _FAULTS if any(word in each.name for word in only.split(","))]
    if listing or not chosen:
        click.echo("\n".join(each.name for each in chosen or _FAULTS))
        sys.exit(0 if chosen else _NOTHING_TO_DO)
    folder = Path(tempfile.mkdtemp(prefix="reaper-faults-"))
    machine = Machine()
    try:
        for each in chosen:
            each.prepare()
        place = isolate(folder)
        violations = asyncio.run(_run(place, _possible(chosen, place), **options))
    finally:
        if keep:
            click.echo(f"\nkept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    click.echo(f"\n{machine.described(options['major'])}")
    shown = [*violations[:_MAX_SHOWN], f"{len(violations)} invariants did not hold."]
    click.echo("\n" + ("\n".join(shown) if violations else "Every invariant held."))
    sys.exit(bool(violations))


def _possible(chosen: Sequence[Fault], place: Isolation) -> list[Fault]:
    """The faults that are possible on this machine; the others are printed with what they lack."""
    missing = {each.name: each.missing(place) for each in chosen}
    for name, what in missing.items():
        if what:
            click.echo(f"     {name}: not available: {what}")
    possible = [each for each in chosen if not missing[each.name]]
    if not possible:
        sys.exit(_NOTHING_TO_DO)
    return possible


async def _run(
    place: Isolation,
    chosen: Sequence[Fault],
    *,
    seed: int,
    count: int | None,
    minutes: float | None,
    scale: str,
    major: int,
) -> list[str]:
    if count is None and minutes is None:
        count = len(chosen)
    done: list[Round] = []
    deadline = time.monotonic() + minutes * _MINUTE if minutes else float("inf")
    async with FaultWorld(major=major, seed=seed, size=_SIZES[scale], place=place) as world:
        async for each in rounds(world, chosen, Random(seed)):  # noqa: S311 (a repeatable choice)
            done.append(each)
            back = "never" if each.back_after is None else f"after {each.back_after:.1f} s"
            problems = "".join(f"\n     {what}" for what in each.problems)
            click.echo(f"{each.number:4} {' + '.join(each.faults)}: back {back}{problems}")
            if len(done) == count or time.monotonic() > deadline:
                break
        await world.leave()
        files = [path for reaper in world.reapers for path in reaper.audit_files]
        ended = terminations(*await world.server_logs())
        found = judge(ended, world.clients.accounts, AuditLog.read(*files))
        result = await FaultRun.of(world, done, found)
    for table in result.tables:
        click.echo(f"\n{table}")
    return result.violations
