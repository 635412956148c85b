"""What grows: counters and histograms of one server, at zero from the start for every policy that is known.

A counter that appears with its first event at 1 has no increase, and no alert would see that event.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from reaper.policy.fates import Fate
from reaper.policy.rules import Action, Mode, Policy, Rules
from reaper.policy.verdict import Result
from reaper.telemetry.applications import Applications

CYCLE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LATENESS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
FAILURES: Final = ("away", "refused", "cycle", "record")


class Histogram:
    """How often a number fell between two bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Each bound with the count of all that lie at or below it."""
        below = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            below += count
            yield bound, below


@dataclass(slots=True)
class ServerCounts:
    """All that was counted at one server; it outlives a reload, and goes when the server goes."""

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By policy, mode and outcome."""
    brakes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By policy and mode."""
    fates: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By policy, mode and fate; only of policies that were rehearsed."""
    churn: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By policy and mode; only of policies that act."""
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FAILURES, 0)))
    clock_steps: int = 0
    applications: Applications = field(default_factory=Applications)
    """Those that have a label of their own."""
    cycles: Histogram = field(default_factory=lambda: Histogram(CYCLE_SECONDS))
    lateness: Histogram = field(default_factory=lambda: Histogram(LATENESS_SECONDS))

    def expect(self, rules: Rules) -> None:
        """Begin at zero with what these policies can come to."""
        for policy in rules.awake:
            self.brakes[policy.name, policy.mode.value] += 0
            for result in _possible(policy):
                self.outcomes[policy.name, policy.mode.value, result.value] += 0
            if policy.mode is Mode.ENFORCE:
                self.churn[policy.name, policy.mode.value] += 0
            if policy.mode is Mode.DRY_RUN:
                for fate in Fate:
                    self.fates[policy.name, policy.mode.value, fate.value] += 0


def _possible(policy: Policy) -> tuple[Result, ...]:
    if policy.mode is Mode.DRY_RUN:
        return (Result.REHEARSED,)
    done = Result.CANCELLED if policy.action is Action.CANCEL else Result.TERMINATED
    return (done, *_OTHERWISE)


_OTHERWISE: Final = (
    Result.SIGNALLED,
    Result.WOKE,
    Result.GONE,
    Result.DENIED,
    Result.UNKNOWN,
    Result.WITHDRAWN,
)
