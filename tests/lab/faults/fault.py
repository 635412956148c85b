"""What a fault is: a generator that breaks something, yields, and repairs it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.lab.world.isolation import Place

from .world import World

Strike = Callable[[World], AsyncIterator[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that fails and is repaired.

    Two faults may overlap in any way unless they touch the same thing. The repair undoes everything, also
    when the fault itself has failed halfway, and may take long.
    """

    name: str
    touches: frozenset[str]
    """What it needs for itself: `server`, `reaper`, `role`, `link`, `policies`, `audit`, `slots`, `clock`."""
    strike: Strike
    may_end_reapers: bool
    """Whether a reaper may end by itself, because its start is impossible meanwhile."""
    missing: Callable[[Place], str]
    """What this machine lacks for it; empty if it is possible."""
    prepare: Callable[[], Any]
    """Fetches what it needs, while the host's network is still available."""

    def happening(self, world: World) -> AbstractAsyncContextManager[None]:
        """The fault, until the end of the block."""
        return asynccontextmanager(self.strike)(world)


def fault(
    name: str,
    *touches: str,
    may_end_reapers: bool = False,
    missing: Callable[[Place], str] = lambda _: "",
    prepare: Callable[[], Any] = lambda: None,
) -> Callable[[Strike], Fault]:
    """Make a fault of a generator."""

    def decorate(strike: Strike) -> Fault:
        return Fault(
            name=name,
            touches=frozenset(touches),
            strike=strike,
            may_end_reapers=may_end_reapers,
            missing=missing,
            prepare=prepare,
        )

    return decorate
