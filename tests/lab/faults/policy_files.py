"""What can become of the policy file: half of it, another one, nonsense, nothing, a rehearsal."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

from reaper.telemetry import events

from .campaign import NewFault
from .contract import Excuse
from .decrees import decree, policy_files
from .load import LIMIT
from .watch import Bite, truce
from .world import World

_HELD: Final = (0.0, 4.0)
_WORST: Final = 0.5
_SPARED: Final = "metabase"
_LIMITS: Final = 4.0
_NONSENSE: Final = (
    "version: 1\npolicies: [",
    "version: 1\npolicies:\n  - {name: leaked, mode: enforce, match: {state: [idle], role: ['*']}}\n",
    "version: 1\npolicies:\n  - {name: all, mode: enforce, mach: {state: [idle], idle_for: 0s}}\n",
    "",
    "\0\x01\x02",
    "a: &a [x, x]\nb: &b [*a, *a]\nversion: 1\n",
)


class _Spoiled:
    """The file is spoiled; the last good one stays in force, and is not forgotten."""

    touches = frozenset({"policies"})
    # One that begins now finds no rules to work by.
    excuse = Excuse.ENDS_REAPERS
    name: str

    async def inflict(self, world: World) -> None:
        bite = Bite(world, events.RELOAD_REFUSED)
        self._spoil(world)
        await bite.awaited(self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))

    async def mend(self, world: World) -> None:
        decree(world)

    def _spoil(self, world: World) -> None:
        raise NotImplementedError


class HalfWritten(_Spoiled):
    """Whoever writes it has stopped in the middle of a line."""

    name = "policy file half-written"

    def _spoil(self, world: World) -> None:
        text = world.policies()
        for path in policy_files(world):
            path.write_text(text[: _middle_of_a_line(text, world.dice)], encoding="utf-8")


class Broken(_Spoiled):
    """There is nonsense in it."""

    name = "policy file broken"

    def _spoil(self, world: World) -> None:
        for path in policy_files(world):
            path.write_text(world.dice.choice(_NONSENSE), encoding="utf-8")


class Removed(_Spoiled):
    """It is gone."""

    name = "policy file removed"

    def _spoil(self, world: World) -> None:
        for path in policy_files(world):
            path.unlink()


class Swapped:
    """Another good one takes its place in one step, back and forth."""

    name = "policy file swapped"
    touches = frozenset({"policies"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        for factor in (world.dice.uniform(1.5, 3), 1.0):
            bite = Bite(world, events.RELOADED)
            decree(world, limit=factor * LIMIT)
            await bite.awaited(self.name)
            await asyncio.sleep(world.dice.uniform(*_HELD))

    async def mend(self, world: World) -> None:
        decree(world)


class Rehearsed:
    """Its policies only rehearse for a while; in that time nobody is terminated."""

    name = "mode dry-run, and back"
    touches = frozenset({"policies", "reaper"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        bite = Bite(world, events.RELOADED)
        decree(world, mode="dry-run")
        if await bite.awaited(self.name):
            async with truce(world, "while all policies rehearsed"):
                await asyncio.sleep(_LIMITS)

    async def mend(self, world: World) -> None:
        decree(world)


def _middle_of_a_line(text: str, dice: Random) -> int:
    if dice.random() < _WORST:
        return text.index(_SPARED) + dice.randrange(1, len(_SPARED))  # an allowlist that spares nobody
    while True:
        at = dice.randrange(1, len(text))
        if "\n" not in text[at - 1 : at]:
            return at


FAULTS: Final[Sequence[NewFault]] = (HalfWritten, Broken, Removed, Swapped, Rehearsed)
