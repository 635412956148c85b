"""Faults of the policy file: half of it, nonsense, nothing, another one, a dry run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from reaper.telemetry import events

from .fault import Fault, fault
from .world import LIMIT, Expectation, World

_HELD: Final = (0.0, 4.0)
_LIMITS: Final = 4.0
_ALLOWLISTED: Final = "metabase"
_NONSENSE: Final = (
    "version: 1\npolicies: [",
    "version: 1\npolicies:\n  - {name: leaked, mode: enforce, match: {state: [idle], role: ['*']}}\n",
    "version: 1\npolicies:\n  - {name: all, mode: enforce, mach: {state: [idle], idle_for: 0s}}\n",
    "",
    "\0\x01\x02",
    "a: &a [x, x]\nb: &b [*a, *a]\nversion: 1\n",
)


def _spoiled(name: str, spoil: Callable[[World, Path], object]) -> Fault:
    """The file is bad: the last good one stays in force, and a reaper that starts now refuses to."""

    @fault(name, "policies", may_end_reapers=True)
    async def spoiled(world: World) -> AsyncIterator[None]:
        try:
            refused = Expectation(world, events.RELOAD_REFUSED)
            for path in world.rule_files:
                spoil(world, path)
            await refused.wait(name)
            await asyncio.sleep(world.dice.uniform(*_HELD))
            yield
        finally:
            world.change_rules()

    return spoiled


def _cut_off(world: World, path: Path) -> None:
    text = world.current_rules
    path.write_text(text[: _middle_of_a_line(text, world.dice)], encoding="utf-8")


def _middle_of_a_line(text: str, dice: Random) -> int:
    if dice.random() < 0.5:
        # The worst place: an allowlist that matches no session any more.
        return text.index(_ALLOWLISTED) + dice.randrange(1, len(_ALLOWLISTED))
    return dice.choice([at for at in range(1, len(text)) if text[at - 1] != "\n"])


@fault("policy file swapped", "policies")
async def swapped(world: World) -> AsyncIterator[None]:
    """Another good file replaces it in one step, back and forth."""
    try:
        for factor in (world.dice.uniform(1.5, 3), 1.0):
            reloaded = Expectation(world, events.RELOADED)
            world.change_rules(limit=factor * LIMIT)
            await reloaded.wait("policy file swapped")
            await asyncio.sleep(world.dice.uniform(*_HELD))
        yield
    finally:
        world.change_rules()


@fault("mode dry-run, and back", "policies", "reaper")
async def dry_run(world: World) -> AsyncIterator[None]:
    """All policies are a dry run for a while, in which nothing may be terminated."""
    try:
        reloaded = Expectation(world, events.RELOADED)
        world.change_rules(mode="dry-run")
        if await reloaded.wait("mode dry-run, and back"):
            async with world.quiet("while all policies were a dry run"):
                await asyncio.sleep(_LIMITS)
        yield
    finally:
        world.change_rules()


FAULTS: Final[Sequence[Fault]] = (
    _spoiled("policy file half-written", _cut_off),
    _spoiled(
        "policy file broken",
        lambda world, path: path.write_text(world.dice.choice(_NONSENSE), encoding="utf-8"),
    ),
    _spoiled("policy file removed", lambda _, path: path.unlink()),
    swapped,
    dry_run,
)
