"""Faults of the link from the reaper to the server: cut, reset, half-open, or lossy."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from reaper.telemetry import events
from tests.lab.world.isolation import Isolation, drop_packets

from .rounds import Fault, fault
from .world import Expectation, FaultWorld

_UNREACHABLE: Final = (events.SERVER_UNREACHABLE, events.CYCLE_FAILED)
_MAX_PAUSE: Final = 3.0


@fault("link cut", "link")
async def cut(world: FaultWorld) -> AsyncIterator[None]:
    """The connection is closed, and no other one is accepted."""
    try:
        unreachable = Expectation(world, *_UNREACHABLE)
        world.proxy.cut()
        await unreachable.wait("link cut")
        await world.hold(0.0, 5.0)
        yield
    finally:
        world.proxy.restore()


@fault("link reset", "link")
async def reset(world: FaultWorld) -> AsyncIterator[None]:
    """The connection is reset at any moment of a cycle, again and again; the next one is accepted."""
    unreachable = Expectation(world, *_UNREACHABLE)
    for _ in range(world.size.repeats):
        world.proxy.reset()
        await world.hold(0, _MAX_PAUSE)
    await unreachable.wait("link reset")
    yield


@fault("link half-open", "link")
async def half_open(world: FaultWorld) -> AsyncIterator[None]:
    """The reaper's packets are acknowledged and not forwarded; later all of them may arrive at once."""
    try:
        if world.dice.random() < 0.5:
            for _ in range(world.size.repeats):  # short interruptions that it must not notice
                world.proxy.stall()
                await world.hold(0, 1)
                world.proxy.restore()
                await world.hold(0, 1)
        unreachable = Expectation(world, *_UNREACHABLE)
        world.proxy.stall()
        await unreachable.wait("link half-open")
        yield
    finally:
        world.proxy.restore()


def _no_network(place: Isolation) -> str:
    return "" if place.own_network else "root, ip and iptables"


@fault("packets dropped", "link", missing=_no_network)
async def dropped_packets(world: FaultWorld) -> AsyncIterator[None]:
    """Every packet is lost, in both directions."""
    unreachable = Expectation(world, *_UNREACHABLE)
    rules = [("--protocol", "tcp", end, str(world.proxy.port)) for end in ("--sport", "--dport")]
    for rule in rules:
        drop_packets(*rule, begin=True)
    try:
        await unreachable.wait("packets dropped")
        yield
    finally:
        for rule in rules:
            drop_packets(*rule, begin=False)


FAULTS: Final[Sequence[Fault]] = (cut, reset, half_open, dropped_packets)
