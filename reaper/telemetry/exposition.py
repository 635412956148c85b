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
    ready = _Ready(list(_families(samples)))
    if OPENMETRICS.partition(";")[0] in accept.lower():
        return Page(openmetrics.generate_latest(ready), OPENMETRICS)  # type: ignore[no-untyped-call]
    return Page(text.generate_latest(ready), TEXT)


class _Ready(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Hand out what was collected before."""
        return self._families


def _families(samples: Iterable[Sample]) -> Iterator[Metric]:
    by_name: dict[str, list[tuple[tuple[str, ...], float | Histogram]]] = {}
    for name, labels, value in samples:
        by_name.setdefault(PREFIX + name, []).append((tuple(map(_harmless, labels)), value))
    for family in CATALOGUE:
        yield _family(family, by_name.pop(family.name, []))
    if by_name:
        message = f"not in the catalogue: {', '.join(by_name)}"
        raise LookupError(message)


def _family(family: Family, rows: list[tuple[tuple[str, ...], float | Histogram]]) -> Metric:
    metric = _empty(family)
    for labels, value in rows:
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
