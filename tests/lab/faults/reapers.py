"""The reaper itself is struck: at every step of its cycle, alone and with others standing by."""

import asyncio
from collections.abc import Sequence
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Final

from .campaign import NewFault
from .contract import Excuse
from .patience import until
from .replica import Replica
from .steps import Step, halted
from .world import LEASE, World

_BRIEFLY: Final = (0.1, 3.0)
_SOON: Final = 20.0


class _Blow:
    """A signal to the reaper, at a few steps of its cycle, one after the other."""

    touches = frozenset({"reaper"})
    excuse = Excuse.NOTHING
    name: str
    number: Signals

    async def inflict(self, world: World) -> None:
        for step in world.dice.sample(tuple(Step), world.size.blows):
            replica = world.leader
            async with halted(world, replica, step) as reached:
                await self._strike(world, replica)
                world.blows[self.number.name, reached] += 1
            await self._get_up(world, replica)

    async def mend(self, _: World) -> None:
        """Nobody starts it but its manager."""

    async def _strike(self, world: World, replica: Replica) -> None:
        world.lost(replica, self.number.name)
        replica.send(self.number)
        await until(lambda: not replica.daemon.running, within=_SOON)

    async def _get_up(self, world: World, replica: Replica) -> None:
        await until(lambda: replica.daemon.running and world.acting, within=_SOON)
        await replica.up()


class Kill(_Blow):
    """No farewell at all."""

    name = "SIGKILL of the reaper"
    number = SIGKILL


class Term(_Blow):
    """A polite end in the middle of something."""

    name = "SIGTERM of the reaper"
    number = SIGTERM

    async def _strike(self, world: World, replica: Replica) -> None:
        world.lost(replica, self.number.name)
        replica.send(self.number)  # it may have something to finish that the step withholds from it


class Freeze(_Blow):
    """It stands still for a while, and goes on as if nothing had happened."""

    name = "SIGSTOP of the reaper"
    number = SIGSTOP

    def __init__(self) -> None:
        self._frozen: Replica | None = None

    async def mend(self, _: World) -> None:
        if self._frozen:
            self._frozen.send(SIGCONT)

    async def _strike(self, _: World, replica: Replica) -> None:
        self._frozen = replica
        replica.send(SIGSTOP)

    async def _get_up(self, world: World, replica: Replica) -> None:
        await asyncio.sleep(world.dice.uniform(*_BRIEFLY))
        replica.send(SIGCONT)


class _Several:
    """Several reapers at one server, and the one that leads is lost."""

    touches = frozenset({"reaper"})
    excuse = Excuse.NOTHING
    name: str
    names: Sequence[str]

    def __init__(self) -> None:
        self._frozen: Replica | None = None

    async def inflict(self, world: World) -> None:
        for name in self.names:
            await world.join(name)
        await until(lambda: any(each.leads for each in world.acting), within=LEASE + _SOON)
        for _ in self.names:
            await self._lose_the_leader(world)

    async def mend(self, world: World) -> None:
        if self._frozen:
            self._frozen.send(SIGCONT)
        for name in self.names:
            await world.leave(name)

    async def _lose_the_leader(self, world: World) -> None:
        leader = world.leader
        others = [each for each in world.acting if each is not leader]
        number = world.dice.choice((SIGKILL, SIGTERM, SIGSTOP))
        async with halted(world, leader, world.dice.choice(tuple(Step))) as reached:
            world.lost(leader, number.name)
            leader.send(number)
            self._frozen = leader if number is SIGSTOP else None
            world.blows[number.name, reached] += 1
        # Who comes back first leads: the one that was ended, or one that stood by.
        everybody = others if number is SIGSTOP else [leader, *others]
        await until(lambda: any(each.leads for each in everybody), within=LEASE + _SOON)
        if self._frozen:
            self._frozen.send(SIGCONT)


class Two(_Several):
    """One that leads, one that stands by."""

    name = "two reapers, the leader lost"
    names = ("second",)


class Three(_Several):
    """One that leads, two that stand by, and two losses."""

    name = "three reapers, the leader lost twice"
    names = ("second", "third")


FAULTS: Final[Sequence[NewFault]] = (Kill, Term, Freeze, Two, Three)
