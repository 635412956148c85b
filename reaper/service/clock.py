"""Two clocks side by side: the server's and this host's monotonic one.

A server clock that is set two hours forward makes every session two hours older at once. Ages stay the
server's business; whether they can be believed shows beside a clock that nobody sets.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from reaper.policy.time import SECOND, Instant, Span

_TOLERANCE: Final = 2 * SECOND
_TOLERANCE_SHARE: Final = 0.01
_MOST_TOLERANCE: Final = 30 * SECOND


class _Look(NamedTuple):
    at: Instant
    """By the server, at some moment between these two of ours."""
    before: float
    after: float


class ClockWatch:
    """Notices when time does not pass on the server as it does here; a sleep of this host shows too."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._before: float | None = None
        self._last: _Look | None = None
        self.counted_from: Instant | None = None
        """The last jump: by how much older ages are wrong is nobody's guess, so they count from there."""

    @property
    def seconds_since_look(self) -> float:
        """How long ago the last look was, by this host."""
        return 0.0 if self._last is None else self._monotonic() - self._last.after

    def begin(self) -> None:
        """A look begins: however long its answer takes, the server dates it after this."""
        self._before = self._monotonic()

    def step(self, at: Instant) -> Span | None:
        """How far the server's clock has jumped since the last look; nothing when it has not."""
        after = self._monotonic()
        before = after if self._before is None else self._before
        self._before = None
        last, self._last = self._last, _Look(at, before, after)
        if last is None:
            return None
        shortest, longest = (
            round((one - other) * SECOND) for one, other in ((before, last.after), (after, last.before))
        )
        passed = at - last.at
        drift = Span(passed - min(max(passed, shortest), longest))
        if abs(drift) <= min(_TOLERANCE + _TOLERANCE_SHARE * longest, _MOST_TOLERANCE):
            return None
        self.counted_from = at
        return drift
