"""Every fault there is, file by file."""

from collections.abc import Sequence
from typing import Final

from . import failover, freezes, reapers, restarts, rights, slots
from .campaign import NewFault

FAULTS: Final[Sequence[NewFault]] = (
    *restarts.FAULTS,
    *freezes.FAULTS,
    *slots.FAULTS,
    *rights.FAULTS,
    *failover.FAULTS,
    *reapers.FAULTS,
)
