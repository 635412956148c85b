"""Many lengths of time in little memory: how many, the longest, and what share of them was shorter."""

import math
from typing import Final

from reaper.policy.spans import Span

_STEP: Final = math.log(1.05)
"""A percentile is at most five in a hundred too long."""


class Ages:
    """Counts lengths of time by their magnitude."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = Span(0)
        self._buckets: dict[int, int] = {}

    def add(self, span: Span) -> None:
        """One more."""
        span = Span(max(span, 0))
        self.count += 1
        self.longest = max(self.longest, span)
        bucket = math.ceil(math.log(span) / _STEP) if span else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, share: float) -> Span:
        """Such a share of them was no longer than this."""
        left = self.count * share
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return Span(min(math.ceil(math.exp(bucket * _STEP)), self.longest))
        return self.longest

    def join(self, others: "Ages") -> None:
        """Count those too."""
        self.count += others.count
        self.longest = max(self.longest, others.longest)
        for bucket, count in others._buckets.items():  # noqa: SLF001 (it is one of us)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
