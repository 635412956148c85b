"""What the loop of one server is about right now, for health, status and metrics."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from reaper.policy.session import Slots


class State(StrEnum):
    """Where a loop stands."""

    CONNECTING = "connecting"
    AWAY = "away"
    REFUSED = "refused"
    STANDBY = "standby"
    FAILING = "failing"
    WORKING = "working"


@dataclass(slots=True, kw_only=True)
class ServerStatus:
    """One server's state, its reason in words, and the last sign of life of its loop."""

    clock: Callable[[], float] = time.monotonic
    state: State = State.CONNECTING
    why: str = ""
    slots: Slots | None = None
    next_cycle: float | None = None
    """When the next cycle is due, by this clock."""
    _last_sign: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin alive."""
        self._last_sign = self.clock()

    def set(self, state: State, why: str = "") -> None:
        """Say where the loop stands; that is a sign of life."""
        self.state, self.why = state, why
        self.next_cycle = None
        self.sign()

    def rests(self, seconds: float) -> None:
        """The next cycle is due after so long."""
        self.next_cycle = self.clock() + seconds

    def sign(self) -> None:
        """The loop has come round."""
        self._last_sign = self.clock()

    @property
    def silent_seconds(self) -> float:
        """How long the loop has not come round."""
        return self.clock() - self._last_sign

    @property
    def started(self) -> bool:
        """Whether the first attempt has had its result, good or bad."""
        return self.state is not State.CONNECTING

    def __str__(self) -> str:
        """`standby: another reaper leads`."""
        return f"{self.state.value}: {self.why}" if self.why else self.state.value
