"""Every fault there is, file by file."""

from collections.abc import Sequence
from typing import Final

from . import restarts
from .campaign import NewFault

FAULTS: Final[Sequence[NewFault]] = (*restarts.FAULTS,)
