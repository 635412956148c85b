"""However many names clients invent, the scraper meets few of them."""

import gc
import tracemalloc
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families as parse_text

from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.samples import KEPT_SECONDS, MAX_NAMES, ApplicationLabels
from tests.unit.policy.build import plan, session, snapshot


def looks(count: int, *, each: int = 12) -> Iterator[Snapshot]:
    """So many looks, each at names that nobody has seen before."""
    for look in range(count):
        yield snapshot(*(session(pid, application=f"{look}-{pid}") for pid in range(1, each + 1)))


def shown(metrics: Metrics) -> set[str]:
    """The applications that this page names."""
    page = metrics.exposition().body.decode()
    return {
        sample.labels["application"]
        for family in parse_text(page)
        for sample in family.samples
        if sample.name == "reaper_sessions"
    }


def test_clients_that_invent_names_without_end_fill_neither_the_scraper_nor_the_memory() -> None:
    metrics = Metrics("1")
    met = set[str]()
    tracemalloc.start()
    sizes = []
    for number, seen in enumerate(looks(40)):
        gauges = metrics.server("orders")
        gauges.use_rules(Rules(policies=()))
        gauges.succeed(seen, plan(seen))
        met |= shown(metrics)
        if number in (20, 39):
            gc.collect()  # what is only waiting to be collected does not grow without end
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()

    assert len(met) == MAX_NAMES + 1
    assert "other" in met
    assert sizes[1] - sizes[0] < 5_000


def test_who_has_a_label_keeps_it_while_others_wait_for_a_place() -> None:
    names = ApplicationLabels()
    for number in range(MAX_NAMES):
        assert names.admit([f"app-{number}"], now=0.0)
    assert not names.admit(["late"], now=1.0)
    assert list(names.admit(["app-7", "late"], now=KEPT_SECONDS - 1)) == ["app-7"]
    assert list(names.admit(["late", "app-7"], now=KEPT_SECONDS + 1)) == ["late", "app-7"]


def test_names_that_differ_only_at_their_end_are_one_series() -> None:
    metrics = Metrics("1")
    seen = snapshot(*(session(pid, application="\x1b" * 62 + end) for pid, end in ((1, "a"), (2, "b"))))
    gauges = metrics.server("orders")
    gauges.use_rules(Rules(policies=()))
    gauges.succeed(seen, plan(seen))
    lines = [line.rpartition(" ")[0] for line in metrics.exposition().body.decode().splitlines()]
    samples = [line for line in lines if line.startswith("reaper_sessions{")]
    assert len(samples) == 1
