"""What a scraper gets: every number, from the first moment, and bounded whatever clients do."""

import gc
import re
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import reaper
from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.policy.match import Match
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Outcome, Plan, Result
from reaper.policy.rules import Action, Mode, Policy, Rules, SafetyLimit, When
from reaper.policy.selector import Selector
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, Session, Snapshot
from reaper.policy.time import SECOND, Timestamp, parse_duration
from reaper.telemetry.metrics.catalogue import CATALOGUE, MetricKind
from reaper.telemetry.metrics.collect import AuditTableGauges, Metrics, ServerMetrics
from reaper.telemetry.metrics.exposition import OPENMETRICS, TEXT
from reaper.telemetry.metrics.samples import (
    KEPT_SECONDS,
    MAX_NAMES,
    OTHER,
    TOP_APPLICATIONS,
    ApplicationLabels,
)
from tests.unit.policy.build import NOW, globs, later, plan, policy, session, sessions, snapshot
from tests.unit.policy.hostile import PROPERTY, snapshots

ORDERS: Final = "orders"


class Watched:
    """One server and its metrics, cycle by cycle."""

    def __init__(self, *policies: Policy, metrics: Metrics | None = None, name: str = ORDERS) -> None:
        self.metrics = metrics or Metrics("1.2.3")
        self.name = name
        self.server: ServerMetrics = self.metrics.server(name)
        self.server.connect()
        self.use_rules(*policies)

    def use_rules(self, *policies: Policy) -> None:
        self.rules = Rules(policies=policies)
        self.server.use_rules(self.rules)

    def cycle(
        self,
        seen: Snapshot,
        *,
        result: Result = Result.TERMINATED,
        after: str = "1s",
        memory: Memory | None = None,
        clock_stepped: bool = False,
    ) -> Plan:
        """Decide, give every termination this result some time after the snapshot, and count."""
        decided = plan(seen, *self.rules.policies, memory=memory)
        outcome = Outcome(result=result, at=Timestamp(seen.at + parse_duration(after)))
        settled = [(candidate, outcome) for candidate in (*decided.candidates, *decided.dry_run_candidates)]
        self.count(decided, settled, clock_stepped=clock_stepped)
        self.server.succeed(seen, decided, clock_stepped=clock_stepped)
        return decided

    def count(
        self, decided: Plan, settled: Iterable[tuple[Candidate, Outcome]] = (), *, clock_stepped: bool = False
    ) -> None:
        self.server.cycle(decided, tuple(settled), took=0.02, clock_stepped=clock_stepped)

    def number(self, name: str, **labels: str) -> float | None:
        return numbers(self.metrics).get(key(name, server=self.name, **labels))

    @property
    def terminated(self) -> float | None:
        return self.number("pg_reaper_outcomes_total", policy="leaked", mode="enforce", outcome="terminated")


Key = tuple[str, frozenset[tuple[str, str]]]


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())


def numbers(metrics: Metrics) -> dict[Key, float]:
    """Every sample of the page; none may be there twice."""
    found: dict[Key, float] = {}
    page = metrics.exposition(OPENMETRICS).body.decode()
    for family in parse_openmetrics(page):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            this = key(sample.name, **sample.labels)
            assert this not in found, this
            found[this] = sample.value
    return found


def labels_of(metrics: Metrics, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for found, labels in numbers(metrics) if found == name}


DRY: Final = policy("dry", mode=Mode.DRY_RUN)
CANCELS: Final = replace(
    policy("slow", Match(states=(ACTIVE,), running_for=parse_duration("1h"))), action=Action.CANCEL
)


def test_both_formats_have_the_same_samples_and_can_be_parsed() -> None:
    here = Watched(policy(), DRY)
    here.cycle(snapshot(*sessions(3)))
    old = parse_text(here.metrics.exposition().body.decode())

    assert {key(s.name, **s.labels): s.value for family in old for s in family.samples} == numbers(
        here.metrics
    )
    assert here.metrics.exposition().content_type == TEXT
    assert here.metrics.exposition(OPENMETRICS).content_type == OPENMETRICS


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml", TEXT),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", TEXT),
        ("application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.2", OPENMETRICS),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text; version=\x00; escaping=rm -rf", OPENMETRICS),
    ],
)
def test_a_scraper_gets_openmetrics_only_when_it_names_it(accept: str, form: str) -> None:
    assert Metrics("1.2.3").exposition(accept).content_type == form


def test_a_snapshot_with_a_prefilter_changes_no_count_of_all_sessions() -> None:
    here = Watched(policy())
    here.cycle(snapshot(*sessions(3), session(900, state=IN_TRANSACTION, idle="1h", in_transaction="2h")))

    here.cycle(replace(snapshot(*sessions(1)), left_out=3))

    assert here.number("pg_reaper_slots_used") == snapshot(*sessions(1)).slots.used
    assert here.number("pg_reaper_sessions", state=IDLE, application="web-1") == 3
    assert here.number("pg_reaper_oldest_transaction_seconds") == 7_200


def test_every_metric_of_the_catalogue_is_on_the_page_with_its_type_and_help() -> None:
    page = Metrics("1.2.3").exposition().body.decode()
    for family in CATALOGUE:
        assert f"# HELP {family.name} {family.help}\n" in page
        assert f"# TYPE {family.name} {family.kind}\n" in page


def test_every_sample_has_the_labels_of_the_catalogue() -> None:
    here = Watched(policy(), DRY)
    here.metrics.put_in_force(digest="abc", interval_seconds=10)
    here.metrics.notifications.update({("ops", "sent"): 1, ("ops", "dropped"): 2})
    here.metrics.audit_table = AuditTableGauges()
    here.cycle(snapshot(*sessions(3)))
    wanted = {name: set(family.labels) for family in CATALOGUE for name in family.series}
    seen = {name: {label for label, _ in labels} - {"le"} for name, labels in numbers(here.metrics)}

    assert seen == wanted


def test_names_and_units_follow_the_conventions() -> None:
    for family in CATALOGUE:
        assert re.fullmatch("pg_reaper_[a-z_]+", family.name)
        assert (family.kind is MetricKind.COUNTER) == family.name.endswith("_total")
        assert not re.search("_(ms|minutes|count|sum|bucket)$", family.name)


def test_every_series_of_the_policies_is_zero_from_the_start() -> None:
    here = Watched(policy(), DRY, CANCELS, policy("disabled", mode=Mode.DISABLED))

    for outcome in ("terminated", "signalled", "changed", "gone", "denied", "unknown", "withdrawn"):
        assert here.number("pg_reaper_outcomes_total", policy="leaked", mode="enforce", outcome=outcome) == 0
    assert here.number("pg_reaper_outcomes_total", policy="slow", mode="enforce", outcome="cancelled") == 0
    assert here.number("pg_reaper_outcomes_total", policy="dry", mode="dry-run", outcome="dry-run") == 0
    assert here.number("pg_reaper_safety_limit_trips_total", policy="leaked", mode="enforce") == 0
    kinds = {"unreachable", "denied", "cycle", "audit_log"}
    assert labels_of(here.metrics, "pg_reaper_failures_total", "kind") == kinds
    assert here.number("pg_reaper_clock_steps_total") == 0
    assert here.number("pg_reaper_lateness_seconds_count") == 0
    assert "disabled" not in labels_of(here.metrics, "pg_reaper_outcomes_total", "policy")


def test_outcomes_safety_limits_failures_and_durations_are_counted() -> None:
    here = Watched(
        policy(), replace(policy("limited", Match(states=(ABORTED,), idle_for=parse_duration("1m"))))
    )
    here.cycle(snapshot(*sessions(3), *(session(900 + n, state=ACTIVE) for n in range(9))))
    here.cycle(snapshot(*(session(n, state=ABORTED) for n in range(8))))
    for kind in ("unreachable", "unreachable", "audit_log"):
        here.server.count("failures_total", kind)

    assert here.terminated == 3
    assert here.number("pg_reaper_failures_total", kind="unreachable") == 2
    assert here.number("pg_reaper_failures_total", kind="audit_log") == 1
    assert here.number("pg_reaper_safety_limit_trips_total", policy="limited", mode="enforce") == 1
    assert here.number("pg_reaper_cycle_seconds_count") == 2
    assert here.number("pg_reaper_cycle_seconds_bucket", le="0.025") == 2
    assert here.number("pg_reaper_cycle_seconds_bucket", le="0.01") == 0
    assert here.number("pg_reaper_cycle_seconds_sum") == pytest.approx(0.04)


def test_gauges_show_the_last_snapshot() -> None:
    here = Watched(policy(), DRY)
    seen = snapshot(
        *sessions(12, application="web", idle="20m"),
        session(500, idle="3h", application="old", state=IDLE),
        session(501, state=IN_TRANSACTION, in_transaction="2h", application="web"),
        session(502, state=None, idle=None, application=None),
        session(503, role="pg-reaper", application="pg_dump"),
        used=40,
    )
    here.cycle(replace(seen, unreadable=2), memory=Memory())

    assert here.number("pg_reaper_slots_max") == 103
    assert here.number("pg_reaper_slots_reserved") == 3
    assert here.number("pg_reaper_slots_used") == 40
    assert here.number("pg_reaper_unreadable_sessions") == 2
    assert here.number("pg_reaper_oldest_idle_seconds") == 3 * 3600
    assert here.number("pg_reaper_oldest_transaction_seconds") == 2 * 3600
    assert here.number("pg_reaper_sessions", state="idle", application="web") == 12
    assert here.number("pg_reaper_sessions", state="idle in transaction", application="web") == 1
    assert here.number("pg_reaper_sessions", state="unknown", application="(unnamed)") == 1
    assert here.number("pg_reaper_candidates", policy="leaked", mode="enforce") == 13
    assert here.number("pg_reaper_candidates", policy="dry", mode="dry-run") == 0
    assert here.number("pg_reaper_skipped", reason="safety_limit") == 13
    assert here.number("pg_reaper_skipped", reason="backups") == 1
    assert here.number("pg_reaper_skipped", reason="listeners") == 0
    assert here.number("pg_reaper_policies", mode="enforce") == 1
    assert here.number("pg_reaper_policies", mode="disabled") == 0


def test_a_negative_age_is_zero() -> None:
    here = Watched()
    here.cycle(
        snapshot(replace(session(), state_change=Timestamp(NOW + SECOND), xact_start=Timestamp(NOW + 1)))
    )

    assert here.number("pg_reaper_oldest_idle_seconds") == 0
    assert here.number("pg_reaper_oldest_transaction_seconds") == 0


def test_a_lost_connection_removes_the_numbers_of_its_last_snapshot() -> None:
    here = Watched(policy())
    here.server.leads = True
    here.cycle(snapshot(*sessions(2)))
    here.server.disconnect()

    assert here.number("pg_reaper_connected") == 0
    assert here.number("pg_reaper_leader") == 0
    assert here.number("pg_reaper_slots_used") is None
    assert here.number("pg_reaper_sessions", state="idle", application="web-1") is None
    assert (here.number("pg_reaper_last_success_timestamp_seconds") or 0) > 0
    assert here.terminated == 2


def test_a_server_removed_by_reload_is_not_shown_even_if_its_cycle_ends_later() -> None:
    here = Watched(policy())
    stays = Watched(policy(), name="stock", metrics=here.metrics)
    decided = here.cycle(snapshot(*sessions(2)))
    here.metrics.forget(ORDERS)
    here.count(decided)
    here.server.count("failures_total", "unreachable")

    assert ORDERS not in here.metrics.exposition().body.decode()
    assert stays.number("pg_reaper_connected") == 1


def test_a_changed_server_and_a_removed_policy_keep_their_counters_and_lose_their_gauges() -> None:
    here = Watched(policy())
    here.cycle(snapshot(*sessions(2)))
    here.use_rules(policy("new"))
    assert here.terminated == 2
    assert here.number("pg_reaper_candidates", policy="new", mode="enforce") == 0

    again = Watched(policy(), metrics=here.metrics)
    assert again.number("pg_reaper_slots_used") is None
    assert again.terminated == 2


def workers(count: int) -> list[Session]:
    return [session(1000 + n, application=f"worker-{n:03}") for n in range(count)]


def test_only_the_largest_applications_have_their_own_label_in_any_order_of_rows() -> None:
    seen = [*sessions(5, application="web"), *workers(200), *sessions(3, application=OTHER)]
    one, other = Watched(), Watched()
    one.cycle(snapshot(*seen))
    other.cycle(snapshot(*reversed(seen)))

    names = labels_of(one.metrics, "pg_reaper_sessions", "application")
    assert names == labels_of(other.metrics, "pg_reaper_sessions", "application")
    # `other` is among the largest, and has no label of its own.
    assert names == {"web", OTHER, *(f"worker-{n:03}" for n in range(TOP_APPLICATIONS - 2))}
    assert one.number("pg_reaper_sessions", state="idle", application=OTHER) == 3 + 202 - TOP_APPLICATIONS


def test_names_without_end_fill_neither_the_scraper_nor_the_memory() -> None:
    shown, sizes = set[str](), []
    metrics = Metrics("1")
    tracemalloc.start()
    for number in range(40):
        here = Watched(metrics=metrics)
        here.cycle(snapshot(*(session(pid, application=f"{number}-{pid}") for pid in range(1, 13))))
        shown |= labels_of(metrics, "pg_reaper_sessions", "application")
        if number in (20, 39):
            gc.collect()  # garbage that waits for its collection is no growth
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()

    assert len(shown) == MAX_NAMES + 1
    assert OTHER in shown
    assert sizes[1] - sizes[0] < 5_000


def test_an_application_keeps_its_label_for_a_day_while_others_wait() -> None:
    names = ApplicationLabels()
    for number in range(MAX_NAMES):
        assert names.admit([f"app-{number}"], now=0.0)
    assert not names.admit(["late"], now=1.0)
    assert list(names.admit(["app-7", "late"], now=KEPT_SECONDS - 1)) == ["app-7"]
    assert list(names.admit(["late", "app-7"], now=KEPT_SECONDS + 1)) == ["late", "app-7"]


def test_names_that_differ_only_after_the_longest_name_are_one_series() -> None:
    here = Watched()
    here.cycle(snapshot(*(session(pid, application="\x1b" * 62 + end) for pid, end in ((1, "a"), (2, "b")))))

    assert len(labels_of(here.metrics, "pg_reaper_sessions", "application")) == 1


def test_outcomes_after_a_dry_run_and_pauses_of_the_refill_guard_are_counted_from_zero() -> None:
    here = Watched(DRY, policy())
    here.server.count("dry_run_outcomes_total", DRY.name, DRY.mode.value, DryRunOutcome.USED_AGAIN.value)
    here.server.count("refill_guard_pauses_total", policy().name, Mode.ENFORCE.value)

    counted = {
        dict(labels).get("outcome", name): value
        for (name, labels), value in numbers(here.metrics).items()
        if name in {"pg_reaper_dry_run_outcomes_total", "pg_reaper_refill_guard_pauses_total"}
    }
    assert counted == {
        "unused": 0,
        "left": 0,
        "used-again": 1,
        "unknown": 0,
        "pg_reaper_refill_guard_pauses_total": 1,
    }


@pytest.mark.parametrize(
    "name",
    [
        'a"} 1\npg_reaper_leader{server="x',
        "two\nlines",
        "back\\slash",
        "\x1b[2J",
        "\ud800",
        "\u202egnp",
        "x" * 5_000,
    ],
)
def test_no_name_can_forge_a_line_or_break_the_page(name: str) -> None:
    here = Watched()
    plain_page = here.metrics.exposition().body.count(b"\n")
    here.cycle(snapshot(session(application=name)))
    found = numbers(here.metrics)

    assert key("pg_reaper_leader", server="x") not in found
    assert sum(value for (metric, _), value in found.items() if metric == "pg_reaper_sessions") == 1
    page = here.metrics.exposition().body
    assert page.count(b"\n") - plain_page < 60
    assert len(max(page.split(b"\n"), key=len)) < 600


@PROPERTY
@given(snapshots)
def test_the_page_of_any_snapshot_can_be_parsed_and_is_bounded(seen: Snapshot) -> None:
    here = Watched(policy(), DRY)
    here.cycle(seen)
    found = numbers(here.metrics)
    counted = [labels for name, labels in found if name == "pg_reaper_sessions"]

    assert sum(found["pg_reaper_sessions", labels] for labels in counted) == len(seen.sessions)
    assert len({dict(labels)["application"] for labels in counted}) <= TOP_APPLICATIONS + 1


def aged(idle: str, **more: str) -> Snapshot:
    """One session with this idle time."""
    return snapshot(session(idle=idle, **more))  # type: ignore[arg-type]


SOON: Final = aged("9m59s")
DAYS: Final = parse_duration("2d")


def at(seen: Snapshot, by: str) -> Snapshot:
    """The same sessions, later."""
    return replace(seen, at=later(seen.at, by=parse_duration(by)))


def late(here: Watched) -> list[float | None]:
    """The number of observations and their sum."""
    return [here.number(f"pg_reaper_lateness_seconds_{what}") for what in ("count", "sum")]


def test_lateness_is_the_time_from_deadline_to_termination() -> None:
    here = Watched(policy())
    here.cycle(SOON)
    here.cycle(at(SOON, "1s"), after="250ms")

    assert late(here) == [1, pytest.approx(0.25)]


@pytest.mark.parametrize(
    "result", [Result.CHANGED, Result.GONE, Result.DENIED, Result.SIGNALLED, Result.DRY_RUN]
)
def test_a_session_that_was_not_terminated_was_not_late(result: Result) -> None:
    here = Watched(policy())
    here.cycle(SOON)
    here.cycle(at(SOON, "1s"), result=result)

    assert late(here) == [0, 0]


@pytest.mark.parametrize("rules", [policy(), policy("lenient", Match(states=(IDLE,), idle_for=DAYS))])
def test_a_session_that_was_due_before_the_first_snapshot_or_under_new_rules_was_not_late(
    rules: Policy,
) -> None:
    here = Watched(rules)
    here.cycle(aged("3h"), memory=Memory())
    here.use_rules(policy())
    here.cycle(at(aged("3h"), "1s"))

    assert late(here) == [0, 0]


def test_the_wait_for_a_second_snapshot_is_lateness() -> None:
    here = Watched(policy())
    here.cycle(snapshot())
    new = at(aged("9m55s"), "10s")
    here.cycle(new, memory=Memory())
    here.cycle(at(new, "1s"), after="0s")

    assert late(here) == [1, pytest.approx(6)]


def test_a_clock_step_makes_no_session_late() -> None:
    here = Watched(policy())
    here.cycle(aged("1m"))
    here.cycle(at(aged("1m"), "2h"), memory=Memory(), clock_stepped=True)
    here.cycle(at(aged("1m"), "2h1s"))

    assert late(here) == [0, 0]
    assert here.number("pg_reaper_clock_steps_total") == 1


@pytest.mark.parametrize(
    "limited",
    [
        replace(policy(), max_per_cycle=0),
        replace(policy(), when=When(0.5)),
        replace(policy(), safety_limit=SafetyLimit(share=0, above=0)),
        replace(policy(), allowlist=Selector(application=globs("web-*"))),
    ],
    ids=["max_per_cycle", "when", "safety_limit", "allowlist"],
)
def test_a_session_that_a_limit_skipped_was_not_late(limited: Policy) -> None:
    here = Watched(limited)
    here.cycle(SOON)
    here.cycle(at(SOON, "1s"))
    free = plan(at(SOON, "1h"), policy())
    here.count(
        free, [(candidate, Outcome(result=Result.TERMINATED, at=free.at)) for candidate in free.candidates]
    )

    assert len(free.candidates) == 1
    assert late(here) == [0, 0]


def test_a_policy_that_needs_more_than_ages_has_no_deadline() -> None:
    match = Match(states=(IDLE,), idle_for=parse_duration("10m"), xmin_age=0)
    here = Watched(policy("vacuum", match))
    soon = snapshot(session(idle="9m59s", xid_age=5))
    here.cycle(soon)
    here.cycle(at(soon, "1h"))

    assert late(here) == [0, 0]


def test_reload_settings_and_webhooks_are_shown() -> None:
    metrics = Metrics("1.2.3")
    metrics.put_in_force(digest="abc", interval_seconds=10)
    metrics.notifications.update({("ops", "sent"): 3, ("ops", "failed"): 1, ("ops", "dropped"): 7})
    metrics.reload.failed()
    found = numbers(metrics)

    assert found[key("pg_reaper_build_info", version="1.2.3")] == 1
    assert found[key("pg_reaper_policy_file_info", digest="abc")] == 1
    assert found[key("pg_reaper_interval_seconds")] == 10
    assert found[key("pg_reaper_reload_success")] == 0
    assert found[key("pg_reaper_notifications_total", hook="ops", result="sent")] == 3
    assert found[key("pg_reaper_notification_lines_dropped_total", hook="ops")] == 7
    metrics.reload.succeed()
    assert numbers(metrics)[key("pg_reaper_reload_success")] == 1


PAGE: Final = Path(reaper.__file__).parent / "help/metrics.md"


def test_the_help_page_lists_every_metric_as_the_catalogue_has_it() -> None:
    rows = re.findall(
        r"^\| `(pg_reaper_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )

    assert rows == [
        (each.name, each.kind.value, ", ".join(f"`{label}`" for label in each.labels), each.help)
        for each in CATALOGUE
    ]
