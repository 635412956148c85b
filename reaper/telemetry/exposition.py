"""From samples to the page that a scraper reads: OpenMetrics for who asks for it, the older text else."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import exposition as text
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from reaper.telemetry.catalogue import CATALOGUE, Family, Kind
from reaper.telemetry.counts import Histogram
from reaper.telemetry.plain import plain

PREFIX: Final = "reaper_"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Sample = tuple[str, tuple[str, ...], float | Histogram]
"""A metric without its prefix, its labels, and its value."""

_LONGEST_LABEL: Final = 200


class Page(NamedTuple):
    """What the scraper gets."""

    body: bytes
    content_type: str


def expose(samples: Iterable[Sample], accept: str) -> Page:
    """Write the page in the form that this Accept header asks for."""
    page = _Ready(samples)
    if OPENMETRICS.partition(";")[0] in accept.lower():
        return Page(openmetrics.generate_latest(page), OPENMETRICS)  # type: ignore[no-untyped-call]
    return Page(text.generate_latest(page), TEXT)


class _Ready(Collector):
    """Hands out one family after the other: all at once, those of many servers take many times the page."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._rows: dict[str, list[tuple[tuple[str, ...], float | Histogram]]] = {}
        for name, labels, value in samples:
            self._rows.setdefault(PREFIX + name, []).append((labels, value))

    def collect(self) -> Iterator[Metric]:
        """Each family of the catalogue, whose samples are gone with it."""
        for family in CATALOGUE:
            yield _family(family, self._rows.pop(family.name, []))
        if self._rows:
            message = f"not in the catalogue: {', '.join(self._rows)}"
            raise LookupError(message)


def _family(family: Family, rows: list[tuple[tuple[str, ...], float | Histogram]]) -> Metric:
    metric = _empty(family)
    for told, value in rows:
        labels = tuple(map(_harmless, told))
        if isinstance(metric, HistogramMetricFamily) and isinstance(value, Histogram):
            metric.add_metric(labels, list(value.buckets()), value.sum)
        elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily) and not isinstance(value, Histogram):
            metric.add_metric(labels, value)
    return metric


def _empty(family: Family) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(family.name, family.told, labels=family.labels)
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    return kind(family.name, family.told, labels=family.labels)


def _harmless(label: str) -> str:
    """Short, and of letters that UTF-8 can carry: one bad name must not cost the whole page."""
    return plain(label)[:_LONGEST_LABEL]
