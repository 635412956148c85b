"""What was learnt of rehearsals and of pools that refill, put together when somebody asks."""

import asyncio
from dataclasses import dataclass
from typing import Final

from reaper.policy.assessment import assess
from reaper.policy.spans import isoformat
from reaper.service.fleet import Fleet
from reaper.telemetry.verdicts import LeftAlone, Verdicts

_MOST_LEFT_ALONE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What all servers together have taught."""

    fleet: Fleet

    async def verdicts(self) -> Verdicts:
        """The newest acts judged; beside the cycles, for they may be thousands."""
        trials = self.fleet.trials()
        assessed = await asyncio.to_thread(assess, trials.newest(), tuple(self.fleet.held()))
        return Verdicts(
            policies=assessed,
            watched=trials.watched,
            forgotten=trials.forgotten,
            left_alone=tuple(self._left_alone())[:_MOST_LEFT_ALONE],
        )

    def _left_alone(self) -> list[LeftAlone]:
        return [
            LeftAlone(
                server=server,
                policy=group.policy,
                session=group.identity,
                until=isoformat(alone.until),
                reason=alone.reason,
            )
            for server, aftermath in self.fleet.aftermaths.items()
            for group, alone in aftermath.refills.left_alone.items()
        ]
