"""From samples to the page that a scraper reads: OpenMetrics for who asks for it, the older text else.

Line by line as the samples come. Hundreds of servers have tens of thousands of them, and Prometheus' library
makes objects of each first: three times the CPU, and four times the memory, for every scrape. The tests read
every page with its parsers.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from reaper.policy.text import plain
from reaper.telemetry.metrics.catalogue import CATALOGUE, Family
from reaper.telemetry.metrics.samples import Histogram

PREFIX: Final = "reaper_"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Sample = tuple[str, tuple[str, ...], float | Histogram]
"""A metric without its prefix, its labels, and its value."""

_LONGEST_LABEL: Final = 200
_FAMILIES: Final = {family.name.removeprefix(PREFIX): family for family in CATALOGUE}
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Page(NamedTuple):
    """What the scraper gets."""

    body: bytes
    content_type: str


def expose(samples: Iterable[Sample], accept: str) -> Page:
    """Write the page in the form that this Accept header asks for."""
    lines: dict[str, list[str]] = {name: [] for name in _FAMILIES}
    for name, labels, value in samples:
        lines[name] += _lines(_FAMILIES[name], labels, value)
    is_open = OPENMETRICS.partition(";")[0] in accept.lower()
    families = (_family(_FAMILIES[name], lines.pop(name), is_open=is_open) for name in _FAMILIES)
    end = b"# EOF\n" if is_open else b""
    return Page(b"".join((*families, end)), OPENMETRICS if is_open else TEXT)


def _family(family: Family, lines: list[str], *, is_open: bool) -> bytes:
    # In OpenMetrics a counter is called by what it counts, and its samples alone say that it is a total.
    name = family.name.removesuffix("_total") if is_open else family.name
    head = f"# HELP {name} {family.told}\n# TYPE {name} {family.kind}\n"
    return "".join((head, *lines)).encode()


def _lines(family: Family, labels: tuple[str, ...], value: float | Histogram) -> Iterator[str]:
    named = [f'{key}="{_harmless(label)}"' for key, label in zip(family.labels, labels, strict=True)]
    if isinstance(value, Histogram):
        yield from _histogram(family.name, named, value)
    else:
        yield _line(family.name, named, value)


def _histogram(name: str, named: list[str], value: Histogram) -> Iterator[str]:
    count = 0.0
    for bound, count in value.buckets():
        yield _line(f"{name}_bucket", [*named, f'le="{bound}"'], count)
    yield _line(f"{name}_count", named, count)
    yield _line(f"{name}_sum", named, value.sum)


def _line(name: str, named: list[str], value: float) -> str:
    return f"{name}{{{','.join(named)}}} {float(value)!r}\n" if named else f"{name} {float(value)!r}\n"


def _harmless(label: str) -> str:
    """Short, and of letters that UTF-8 can carry: one bad name must not cost the whole page."""
    return plain(label)[:_LONGEST_LABEL].translate(_ESCAPES)


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
        """Count lines that have arrived in the table."""
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
