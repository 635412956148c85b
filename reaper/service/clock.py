"""Compares the server's clock with this host's monotonic clock between cycles.

If a server's clock is set two hours forward, every session becomes two hours older at once. Ages always come
from the server's clock; the comparison shows whether they can be believed.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from reaper.policy.time import SECOND, Duration, Timestamp

_TOLERANCE: Final = 2 * SECOND
_TOLERANCE_SHARE: Final = 0.01
_LARGEST_TOLERANCE: Final = 30 * SECOND


class _Reading(NamedTuple):
    at: Timestamp
    """The server's time, read at some moment between the two times of this host."""
    before: float
    after: float


class ClockWatch:
    """Detects that time passes differently on the server and here; a suspend of this host shows too."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._before: float | None = None
        self._last: _Reading | None = None
        self.counted_from: Timestamp | None = None
        """The last jump. Ages from before it are wrong by an unknown amount, so they count from there."""

    @property
    def seconds_since_snapshot(self) -> float:
        """Seconds since the last reading of the server's clock, by this host's clock."""
        return 0.0 if self._last is None else self._monotonic() - self._last.after

    def begin(self) -> None:
        """Note that a request starts now: the server's answer is dated later than this."""
        self._before = self._monotonic()

    def step(self, at: Timestamp) -> Duration | None:
        """Return by how much the server's clock has jumped since the last reading, or None if it has not."""
        after = self._monotonic()
        before = after if self._before is None else self._before
        self._before = None
        last, self._last = self._last, _Reading(at, before, after)
        if last is None:
            return None
        # The server dated its answer between the two times of this host: a slow answer is no jump.
        shortest, longest = (
            round((one - other) * SECOND) for one, other in ((before, last.after), (after, last.before))
        )
        passed = at - last.at
        drift = Duration(passed - min(max(passed, shortest), longest))
        # Two good clocks may drift apart while NTP corrects one of them.
        if abs(drift) <= min(_TOLERANCE + _TOLERANCE_SHARE * longest, _LARGEST_TOLERANCE):
            return None
        self.counted_from = at
        return drift
