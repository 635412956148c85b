"""What comes after a cycle: what becomes of whom it rehearsed, and who comes for whom it has ended."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from reaper.policy.fates import Fated
from reaper.policy.memory import Memory
from reaper.policy.refilling import Refilling
from reaper.policy.spans import Span
from reaper.postgres.onlooker import Onlooker
from reaper.record.ledger import Author, Ledger
from reaper.record.writer import RecordFailed
from reaper.service.cycle import Cycle
from reaper.service.holdings import Holdings
from reaper.service.refills import Refills
from reaper.service.trials import Trials
from reaper.service.watch import Watch


class News(NamedTuple):
    """What has come out since the last cycle."""

    fated: Sequence[Fated]
    left_alone: Sequence[Refilling]


class Aftermath:
    """Looks at what cycles have led to, and records it; of longer life than a connection."""

    def __init__(
        self, server: str, ledger: Ledger, trials: Trials, *, before: "Aftermath | None" = None
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._trials = trials
        # What another loop watches stays its own: that loop is still at its end when this one begins, maybe
        # at another server, and neither can tell what became of the other's sessions.
        self.watch = Watch(server, ledger, trials)
        self.refills: Refills = before.refills if before else Refills()
        self.holdings: Holdings = before.holdings if before else Holdings(server)

    def next(self) -> "Aftermath":
        """What the loop that takes the place of this one begins with."""
        return Aftermath(self._server, self._ledger, self._trials, before=self)

    def reminded(self, memory: Memory) -> Memory:
        """What the next cycle has to know of it."""
        return memory.leaving_alone(self.refills.left_alone)

    async def cycled(self, cycle: Cycle, onlooker: Onlooker, author: Author, *, interval: Span) -> News:
        """Look; raises Lost. Nobody rehearsed and nobody ended lately: nothing to look at."""
        left_alone = await self.refills.cycled(cycle, onlooker)
        held = self.holdings.cycled(cycle.plan, rules=author.rules, dry_run=author.dry_run)
        # The cycle that wants to act finds out as well, and tells.
        with suppress(RecordFailed):
            self._ledger.left_alone(author, cycle.name, left_alone)
            self._ledger.held_back(author, cycle.name, cycle.snapshot.at, held)
        return News(await self.watch.cycled(cycle, onlooker, author, interval=interval), left_alone)
