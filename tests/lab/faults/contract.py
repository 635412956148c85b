"""What a fault is."""

from enum import Flag, auto
from typing import Protocol, runtime_checkable

from .place import Place
from .world import World


class Excuse(Flag):
    """What a fault may bring about, and is not held against the reaper while it lasts."""

    NOTHING = 0
    ENDS_REAPERS = auto()
    """A reaper may end by itself: its start was made impossible."""


class Fault(Protocol):
    """Something that goes wrong and is mended; one instance strikes once.

    Two faults may strike at once and overlap in any way, unless they touch the same thing. `mend` undoes
    everything that `inflict` did, also when `inflict` has failed halfway, and may be slow.
    """

    name: str
    touches: frozenset[str]
    """What it has to itself: `server`, `reaper`, `role`, `line`, `policies`, `record`, `slots`, `clock`."""
    excuse: Excuse

    async def inflict(self, world: World, /) -> None:
        """Let it go wrong; return when it has."""

    async def mend(self, world: World, /) -> None:
        """Put it right."""


@runtime_checkable
class Choosy(Protocol):
    """A fault that needs something that not every machine has."""

    def missing(self, place: Place, /) -> str:
        """What it lacks here; nothing when it can strike."""


@runtime_checkable
class Fetching(Protocol):
    """A fault that needs something from elsewhere."""

    def fetch(self) -> None:
        """Get it, while the network of the host is still there."""
