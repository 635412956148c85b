"""Whether the service lives, and whether it is of use: one page of words for people, a status for probes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An answer to a probe."""

    good: bool
    reasons: Mapping[str, str]
    """For each part that was asked, what it says."""


Probe = Callable[[], Health]
