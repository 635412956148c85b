"""What a run has done, for its last words."""

from collections import Counter
from dataclasses import dataclass, field

from reaper.policy.verdict import Result
from reaper.service.cycle import Cycle


@dataclass(slots=True)
class Tally:
    """Counts over all cycles of all servers."""

    cycles: int = 0
    failures: int = 0
    brakes: int = 0
    results: Counter[tuple[str, Result]] = field(default_factory=Counter)
    """By policy and result."""

    def add(self, cycle: Cycle) -> None:
        """Count one cycle."""
        self.cycles += 1
        self.brakes += len(cycle.plan.brakes)
        self.results.update((reap.policy.name, outcome.result) for reap, outcome in cycle.settled)

    @property
    def by_result(self) -> dict[str, int]:
        """How often each outcome came about, over all policies."""
        total = Counter[str]()
        for (_, result), count in self.results.items():
            total[result.value] += count
        return dict(total)
