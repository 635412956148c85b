"""Whether the loops come round, for probes, the watchdog and `systemctl status`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from reaper.config import Settings
from reaper.policy.time import seconds
from reaper.service.fleet import Fleet
from reaper.service.status import State
from reaper.telemetry.http.server import Health
from reaper.telemetry.metrics.collect import ReloadGauges

_LONGEST_SILENCE: Final = 100.0
"""Beyond three intervals: the longest back-off, and the time after which a hung server is given up."""

_OF_USE: Final = {State.WORKING, State.STANDBY}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Looks at the standings of all loops."""

    fleet: Fleet
    settings: Callable[[], Settings]
    reload: ReloadGauges
    dry_run: bool = False
    beside: Callable[[], Mapping[str, str]] = dict
    """What else is worth telling, and makes nothing less ready."""

    def live(self) -> Health:
        """Bad when a loop stands still: then nothing but a restart helps."""
        limit = 3 * seconds(self.settings().interval) + _LONGEST_SILENCE
        silent = {
            name: f"no sign of life for {status.silent_seconds:.0f}s ({status})"
            for name, status in self.fleet.statuses.items()
            if status.silent_seconds > limit
        }
        return Health(good=not silent, reasons=silent)

    def ready(self) -> Health:
        """Bad when a server that is ours is not looked after, with the reason."""
        statuses = self.fleet.statuses
        missing = {name: str(status) for name, status in statuses.items() if status.state not in _OF_USE}
        return Health(good=not missing, reasons={**missing, **self.beside()})

    def started(self) -> bool:
        """Whether every loop has had the result of its first attempt."""
        return all(status.started for status in self.fleet.statuses.values())

    def status(self) -> str:
        """`3 servers, 412 of 500 slots, 2 policies enforcing`."""
        statuses = list(self.fleet.statuses.values())
        seen_now = (status for status in statuses if status.state is State.WORKING)
        slots = [status.slots for status in seen_now if status.slots]
        enforcing = 0 if self.dry_run else len(self.settings().rules.enforcing)
        parts = [
            _counted(len(statuses), "server"),
            f"{sum(each.used for each in slots)} of {sum(each.total for each in slots)} slots",
            f"{_counted(enforcing, 'policy', 'policies')} enforcing",
        ]
        if not self.reload.succeeded:
            parts.append("the policy file on disk is refused")
        for state in (State.STANDBY, State.AWAY, State.REFUSED, State.FAILING):
            count = sum(status.state is state for status in statuses)
            parts += [f"{count} {state.value}"] if count else []
        return ", ".join(parts)


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
