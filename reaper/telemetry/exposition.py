"""From samples to the page that a scraper reads: OpenMetrics for who asks for it, the older text for others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import exposition as plain_text
from prometheus_client import openmetrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as open_metrics
