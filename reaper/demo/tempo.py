"""The tempo of the demo: how long a beat lasts, and waiting that heeds a signal."""

import time
from collections.abc import Callable
from signal import Signals
from typing import Final

from reaper.service.pause import Flag, pause

USUAL_SECONDS: Final = 30
"""The length of the story at which a beat is a second."""

_POLL: Final = 0.05
_PATIENCE: Final = 60.0


class Interrupted(Exception):
    """A signal has asked the demo to end."""

    def __init__(self, *, by: Signals) -> None:
        super().__init__(f"ended by {by.name}")
        self.by = by


class StoryStuck(Exception):
    """What the story waits for does not happen."""

    def __init__(self, *, awaited: str) -> None:
        super().__init__(f"the demo waited for {awaited}, and it did not come")


class Tempo:
    """Beats and conditions to wait for, until a signal comes."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._stop = Flag()
        self._by: Signals | None = None

    def interrupt(self, by: Signals) -> None:
        """Let whoever waits or will wait come back with Interrupted; the first signal counts."""
        self._by = self._by or by
        self._stop.set()

    def heed(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._by is not None:
            raise Interrupted(by=self._by)

    def seconds(self, beats: float) -> float:
        """How long so many beats last."""
        return beats * self._seconds / USUAL_SECONDS

    async def rest(self, beats: float) -> None:
        """Let so many beats pass."""
        await pause(self.seconds(beats), self._stop)
        self.heed()

    async def until(self, awaited: str, holds: Callable[[], bool]) -> None:
        """Wait for the story to get there; what is awaited stands in the error when it does not."""
        deadline = time.monotonic() + _PATIENCE + 2 * self._seconds
        while not holds():
            if time.monotonic() > deadline:
                raise StoryStuck(awaited=awaited)
            await pause(_POLL, self._stop)
            self.heed()
