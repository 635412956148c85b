"""Every fault there is, file by file."""

from collections.abc import Sequence
from typing import Final

from . import (
    admission,
    clocks,
    failover,
    freezes,
    papers,
    policy_files,
    reapers,
    restarts,
    rights,
    routes,
    slots,
)
from .campaign import NewFault

FAULTS: Final[Sequence[NewFault]] = (
    *restarts.FAULTS,
    *freezes.FAULTS,
    *slots.FAULTS,
    *rights.FAULTS,
    *failover.FAULTS,
    *reapers.FAULTS,
    *routes.FAULTS,
    *admission.FAULTS,
    *clocks.FAULTS,
    *papers.FAULTS,
    *policy_files.FAULTS,
)
