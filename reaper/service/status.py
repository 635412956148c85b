"""The state of each server's loop, and what probes, the watchdog and `systemctl status` report of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from reaper.config import Settings
from reaper.policy.session import Slots
from reaper.policy.text import counted
from reaper.policy.time import seconds
from reaper.telemetry.http.routes import Health
from reaper.telemetry.metrics.collect import ReloadGauges


class State(StrEnum):
    """States of a server's loop."""

    CONNECTING = "connecting"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    STANDBY = "standby"
    FAILING = "failing"
    WORKING = "working"


_READY: Final = {State.WORKING, State.STANDBY}
_NOT_WORKING: Final = (State.STANDBY, State.UNREACHABLE, State.DENIED, State.FAILING)
_SILENCE_SECONDS: Final = 100.0
"""Allowed beyond three intervals: the longest wait for a reconnect, and for a hung server."""


@dataclass(slots=True, kw_only=True)
class ServerStatus:
    """The state of one server's loop, the reason for it, and when the loop last made progress."""

    clock: Callable[[], float] = time.monotonic
    state: State = State.CONNECTING
    why: str = ""
    slots: Slots | None = None
    next_cycle: float | None = None
    """When the next cycle is due, by `clock`."""
    _last_progress: float = field(init=False)

    def __post_init__(self) -> None:
        """Count a new loop as one that makes progress."""
        self._last_progress = self.clock()

    def set(self, state: State, why: str = "") -> None:
        """Set the state; this counts as progress."""
        self.state, self.why = state, why
        self.next_cycle = None  # known again when the loop rests
        self.progress()

    def rests(self, seconds: float) -> None:
        """Note that the next cycle is due in `seconds`."""
        self.next_cycle = self.clock() + seconds

    def progress(self) -> None:
        """Note that the loop has completed a pass."""
        self._last_progress = self.clock()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the loop last made progress."""
        return self.clock() - self._last_progress

    @property
    def started(self) -> bool:
        """True once the first attempt to connect has ended, in success or failure."""
        return self.state is not State.CONNECTING

    def __str__(self) -> str:
        """`standby: another reaper leads`."""
        return f"{self.state.value}: {self.why}" if self.why else self.state.value


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Answers `/livez`, `/readyz`, the watchdog and `systemctl status` from the states of all loops."""

    statuses: Callable[[], Mapping[str, ServerStatus]]
    settings: Callable[[], Settings]
    reload: ReloadGauges
    dry_run: bool = False
    notices: Callable[[], Mapping[str, str]] = dict
    """Further problems that are reported and do not make the service unready."""

    def live(self) -> Health:
        """Bad if a loop makes no progress: only a restart helps then."""
        # An unreachable server is no reason to restart: its loop makes progress with every attempt.
        limit = 3 * seconds(self.settings().interval) + _SILENCE_SECONDS
        silent = {
            name: f"no progress for {status.silent_seconds:.0f}s ({status})"
            for name, status in self.statuses().items()
            if status.silent_seconds > limit
        }
        return Health(good=not silent, reasons=silent)

    def ready(self) -> Health:
        """Bad if this service neither runs cycles at a server nor stands by for it, with the reason."""
        missing = {
            name: str(status) for name, status in self.statuses().items() if status.state not in _READY
        }
        return Health(good=not missing, reasons={**missing, **self.notices()})

    def started(self) -> bool:
        """True if every loop has ended its first attempt to connect."""
        return all(status.started for status in self.statuses().values())

    def status(self) -> str:
        """`3 servers, 412 of 500 slots, 2 policies enforcing`."""
        statuses = list(self.statuses().values())
        # The last known slots of a server that is unreachable now may be hours old.
        slots = [each.slots for each in statuses if each.state is State.WORKING and each.slots]
        enforcing = 0 if self.dry_run else len(self.settings().rules.enforcing)
        parts = [
            counted(len(statuses), "server"),
            f"{sum(each.used for each in slots)} of {sum(each.total for each in slots)} slots",
            f"{counted(enforcing, 'policy', 'policies')} enforcing",
        ]
        if not self.reload.succeeded:
            parts.append("the policy file on disk is refused")
        for state in _NOT_WORKING:
            count = sum(status.state is state for status in statuses)
            parts += [f"{count} {state.value}"] if count else []
        return ", ".join(parts)
