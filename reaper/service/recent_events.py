"""What happened last, over all servers: for people who look; the record is the truth."""

from collections import deque
from typing import Final

from reaper.policy.time import isoformat
from reaper.service.cycle import Cycle
from reaper.telemetry.http.views import RecentEvent

_MOST: Final = 30
BRAKED: Final = "braked"


class RecentEvents:
    """Remembers the last few outcomes and brakes."""

    def __init__(self) -> None:
        self._recent_events = deque[RecentEvent](maxlen=_MOST)

    def add(self, server: str, cycle: Cycle) -> None:
        """A cycle has come to its end."""
        for trip in cycle.new_brakes:
            self._recent_events.append(
                RecentEvent(
                    at=isoformat(cycle.snapshot.at),
                    server=server,
                    policy=trip.policy.name,
                    mode=trip.policy.mode.value,
                    outcome=BRAKED,
                    pid=None,
                    session=None,
                    reason=trip.reason,
                )
            )
        for reap, outcome in cycle.settled[-_MOST:]:
            self._recent_events.append(
                RecentEvent(
                    at=isoformat(outcome.at or cycle.snapshot.at),
                    server=server,
                    policy=reap.policy.name,
                    mode=reap.mode.value,
                    outcome=outcome.result.value,
                    pid=reap.session.id.pid,
                    session=reap.session.identity,
                    reason=reap.reason,
                )
            )

    def latest(self, most: int) -> tuple[RecentEvent, ...]:
        """The last ones, the latest first."""
        return tuple(self._recent_events)[: -most - 1 : -1]
