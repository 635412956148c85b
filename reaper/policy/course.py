"""A course of time in so many steps, however long it is: when they are too many, two become one."""

from dataclasses import dataclass, field
from typing import Final

from reaper.policy.spans import SECOND, Instant, Span

MOST_STEPS: Final = 480
_FIRST_STEP: Final = Span(10 * SECOND)


@dataclass(slots=True)
class Step:
    """What was seen in one step of time."""

    used: int = 0
    """The most slots that were used."""
    would: int = 0
    """The most slots that would have been used."""
    taken: dict[str, int] = field(default_factory=dict)
    """How many each policy would have taken."""

    def merge(self, other: "Step") -> None:
        """Both steps in one."""
        self.used = max(self.used, other.used)
        self.would = max(self.would, other.would)
        for policy, count in other.taken.items():
            self.taken[policy] = self.taken.get(policy, 0) + count


class Course:
    """Slots and terminations over time."""

    def __init__(self) -> None:
        self.width = _FIRST_STEP
        self._began: Instant | None = None
        self.steps: dict[int, Step] = {}
        """By their number; a number without a step is a time of which nothing is known."""

    def level(self, at: Instant, used: int, would: int) -> None:
        """So many slots at this moment."""
        step = self._step(at)
        step.used = max(step.used, used)
        step.would = max(step.would, would)

    def taken(self, at: Instant, policy: str) -> None:
        """A termination at this moment."""
        step = self._step(at)
        step.taken[policy] = step.taken.get(policy, 0) + 1

    def moment(self, number: int) -> Instant:
        """When a step begins."""
        return Instant((self._began or 0) + number * self.width)

    def _step(self, at: Instant) -> Step:
        if self._began is None:
            self._began = Instant(at // _FIRST_STEP * _FIRST_STEP)
        while (number := max((at - self._began) // self.width, 0)) >= MOST_STEPS:
            self._widen()
        found = self.steps.get(number)
        if found is None:
            found = self.steps[number] = Step()
        return found

    def _widen(self) -> None:
        self.width = Span(2 * self.width)
        merged = dict[int, Step]()
        for number, step in self.steps.items():
            if number // 2 in merged:
                merged[number // 2].merge(step)
            else:
                merged[number // 2] = step
        self.steps = merged
