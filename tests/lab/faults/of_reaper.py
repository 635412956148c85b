"""Faults of the reaper itself: ended or frozen at every step of its cycle, alone or with standbys."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Final

from tests.lab.world.observe import wait_until

from .halts import Step, halted
from .rounds import Fault, fault
from .world import LEASE, FaultWorld

_SOON: Final = 20.0


def _signal_at_steps(number: Signals) -> Fault:
    """The leader gets a signal at a few steps of its cycle, one after the other."""

    @fault(f"{number.name} of the reaper", "reaper")
    async def at_steps(world: FaultWorld) -> AsyncIterator[None]:
        for step in world.dice.sample(tuple(Step), world.size.repeats):
            reaper, ends = world.leader, len(world.leader.ends)
            async with halted(world, reaper, step) as reached:
                world.note_loss(reaper, number.name)
                reaper.send(number)
                world.signals[number.name, reached] += 1
                if number is SIGKILL:
                    await wait_until(lambda: not reaper.running, within=_SOON)  # noqa: B023
                # After SIGTERM it may have to finish something that the step withholds.
            await wait_until(lambda: len(reaper.ends) > ends and reaper.running, within=_SOON)  # noqa: B023
            await reaper.ready()
        yield

    return at_steps


@fault("SIGSTOP of the reaper", "reaper")
async def frozen(world: FaultWorld) -> AsyncIterator[None]:
    """The leader stands still at some steps, and goes on as if nothing had happened."""
    for step in world.dice.sample(tuple(Step), world.size.repeats):
        reaper = world.leader
        try:
            async with halted(world, reaper, step) as reached:
                reaper.send(SIGSTOP)
                world.signals[SIGSTOP.name, reached] += 1
            await asyncio.sleep(world.dice.uniform(0.1, 3.0))
        finally:
            reaper.send(SIGCONT)
    yield


def _leader_lost(name: str, *others: str) -> Fault:
    """Several reapers work for one server, and the leader is lost as often as there are others."""

    @fault(name, "reaper")
    async def leader_lost(world: FaultWorld) -> AsyncIterator[None]:
        try:
            for other in others:
                await world.join(other)
            await wait_until(lambda: any(each.leads for each in world.acting), within=LEASE + _SOON)
            for _ in others:
                await _lose_leader(world)
            yield
        finally:
            for other in others:
                await world.leave(other)

    return leader_lost


async def _lose_leader(world: FaultWorld) -> None:
    leader = world.leader
    others = [each for each in world.acting if each is not leader]
    number = world.dice.choice((SIGKILL, SIGTERM, SIGSTOP))
    try:
        async with halted(world, leader, world.dice.choice(tuple(Step))) as reached:
            world.note_loss(leader, number.name)
            leader.send(number)
            world.signals[number.name, reached] += 1
        # The next leader is one that stood by, or the lost one if it is back first.
        candidates = others if number is SIGSTOP else [leader, *others]
        await wait_until(lambda: any(each.leads for each in candidates), within=LEASE + _SOON)
    finally:
        leader.send(SIGCONT)


FAULTS: Final[Sequence[Fault]] = (
    _signal_at_steps(SIGKILL),
    _signal_at_steps(SIGTERM),
    frozen,
    _leader_lost("two reapers, the leader lost", "second"),
    _leader_lost("three reapers, the leader lost twice", "second", "third"),
)
