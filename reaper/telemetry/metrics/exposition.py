"""Writes samples as the page that a scraper reads: OpenMetrics if it accepts that, the older text otherwise.

The page is written line by line. With hundreds of servers it has tens of thousands of samples, and
prometheus-client would make an object of each: three times the CPU and four times the memory in every scrape.
The tests read every page with its parsers.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from reaper.policy.text import printable
from reaper.telemetry.metrics.catalogue import CATALOGUE, Metric

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MAX_LABEL: Final = 200
_PREFIX: Final = "pg_reaper_"
_METRICS: Final = {metric.name.removeprefix(_PREFIX): metric for metric in CATALOGUE}
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Histogram:
    """Counts of observations by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Each bound with the number of observations up to it; the last one has no bound."""
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            total += count
            yield bound, total


Sample = tuple[str, tuple[str, ...], float | Histogram]
"""A metric without its prefix, its labels, and its value."""


class MetricsPage(NamedTuple):
    """The answer to a scraper."""

    body: bytes
    content_type: str


def accepted_format(accept: str) -> str:
    """OpenMetrics if this Accept header names it, the older text otherwise."""
    return OPENMETRICS if OPENMETRICS.partition(";")[0] in accept.lower() else TEXT


def expose(samples: Iterable[Sample], accept: str) -> MetricsPage:
    """Write the page in the format that this Accept header names."""
    lines: dict[str, list[str]] = {name: [] for name in _METRICS}
    for name, labels, value in samples:
        lines[name] += _lines(_METRICS[name], labels, value)
    content_type = accepted_format(accept)
    is_open = content_type == OPENMETRICS
    blocks = (_block(_METRICS[name], lines.pop(name), is_open=is_open) for name in _METRICS)
    end = b"# EOF\n" if is_open else b""
    return MetricsPage(b"".join((*blocks, end)), content_type)


def _block(metric: Metric, lines: list[str], *, is_open: bool) -> bytes:
    # OpenMetrics names a counter without _total, and only its samples with it.
    name = metric.name.removesuffix("_total") if is_open else metric.name
    head = f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
    return "".join((head, *lines)).encode()


def _lines(metric: Metric, labels: tuple[str, ...], value: float | Histogram) -> Iterator[str]:
    named = [f'{key}="{_escaped(label)}"' for key, label in zip(metric.labels, labels, strict=True)]
    if not isinstance(value, Histogram):
        yield _line(metric.name, named, value)
        return
    count = 0.0
    for bound, count in value.buckets():
        yield _line(f"{metric.name}_bucket", [*named, f'le="{bound}"'], count)
    yield _line(f"{metric.name}_count", named, count)
    yield _line(f"{metric.name}_sum", named, value.sum)


def _line(name: str, named: list[str], value: float) -> str:
    return f"{name}{{{','.join(named)}}} {float(value)!r}\n" if named else f"{name} {float(value)!r}\n"


def _escaped(label: str) -> str:
    # One bad name must not cost the whole page: it is short, and of characters that UTF-8 can encode.
    return printable(label)[:_MAX_LABEL].translate(_ESCAPES)
