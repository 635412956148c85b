"""Two clocks side by side: the server's and this host's monotonic one.

A server clock that is set two hours forward makes every session two hours older at once. Ages stay the
server's business; whether they can be believed shows beside a clock that nobody sets.
"""

import time
from collections.abc import Callable
from typing import Final

from reaper.policy.spans import SECOND, Instant, Span

_TOLERANCE: Final = 2 * SECOND
_TOLERANCE_SHARE: Final = 0.01


class ClockWatch:
    """Notices when time does not pass on the server as it does here; a sleep of this host shows too."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last: tuple[Instant, float] | None = None
        self.counted_from: Instant | None = None
        """The last jump: by how much older ages are wrong is nobody's guess, so they count from there."""

    @property
    def seconds_since_look(self) -> float:
        """How long ago the last look was, by this host."""
        return 0.0 if self._last is None else self._monotonic() - self._last[1]

    def step(self, at: Instant) -> Span | None:
        """How far the server's clock has jumped since the last look; nothing when it has not."""
        here = self._monotonic()
        last, self._last = self._last, (at, here)
        if last is None:
            return None
        passed = round((here - last[1]) * SECOND)
        drift = Span((at - last[0]) - passed)
        if abs(drift) <= _TOLERANCE + _TOLERANCE_SHARE * passed:
            return None
        self.counted_from = at
        return drift
