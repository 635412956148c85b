"""How the copy of the record in a table comes along, in numbers."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from reaper.telemetry.exposition import Sample

FAILURES = ("away", "refused", "file", "missed")


@dataclass(slots=True)
class CopyGauges:
    """What is known of the copy now."""

    connected: bool = False
    lines: int = 0
    waiting: int = 0
    """Bytes that have not arrived there."""
    oldest: float | None = None
    """When the first line of those was written."""
    last_success: float = 0.0
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FAILURES, 0)))

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest line has been waiting; 0 when all have arrived."""
        return 0.0 if self.oldest is None else max(time.time() - self.oldest, 0.0)

    def arrived(self, lines: int) -> None:
        """So many lines more are there; none, when all of them were."""
        self.lines += lines
        self.last_success = time.time()

    def samples(self) -> Iterator[Sample]:
        """Everything for the page."""
        yield "record_table_connected", (), float(self.connected)
        yield "record_table_lag_seconds", (), self.lag_seconds
        yield "record_table_lag_bytes", (), self.waiting
        yield "record_table_last_success_timestamp_seconds", (), self.last_success
        yield "record_table_lines_total", (), self.lines
        for kind, count in self.failures.copy().items():
            yield "record_table_failures_total", (kind,), count
