"""Alert rules and dashboard query metrics that exist; alerts state what to do, and fire when they should.

Without promtool (Debian: `prometheus`) on the path, everything but the firing itself is checked.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from reaper.cli.app import reaper
from reaper.telemetry.metrics.catalogue import CATALOGUE

DEPLOY: Final = Path(__file__).parents[3] / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
LABELS_OF: Final = {name: set(family.labels) for family in CATALOGUE for name in family.series}
PROMETHEUS_LABELS: Final = {"job", "instance", "alertname", "alertstate", "severity", "le"}


def document(path: Path) -> Any:  # noqa: ANN401 (as yaml returns it)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


TESTS: Final = document(PROMETHEUS / "rules_test.yaml")["tests"]
ALERTS: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule for group in document(PROMETHEUS / "rules.yaml")["groups"] for rule in group["rules"]
}
DASHBOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
SHOWN: Final = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES: Final = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
PANEL_QUERIES: Final = [(panel["title"], target["expr"]) for panel in SHOWN for target in panel["targets"]]
DASHBOARD_QUERIES: Final = [
    *PANEL_QUERIES,
    *((name, each["query"]["query"]) for name, each in VARIABLES.items() if each["type"] == "query"),
    *((each["name"], each["expr"]) for each in DASHBOARD["annotations"]["list"] if "expr" in each),
]
QUERIES: Final = [*((name, rule["expr"]) for name, rule in ALERTS.items()), *DASHBOARD_QUERIES]
COMMANDS: Final = [
    (name, re.sub(r"\{\{.*?\}\}", "SERVER", quoted).split())
    for name, rule in ALERTS.items()
    for quoted in re.findall("`reaper ([^`]*)`", rule["annotations"]["runbook"])
]
every_alert = pytest.mark.parametrize("name", ALERTS)
every_panel = pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\bpg_reaper_\w+", query))


def labels_kept_by(query: str) -> set[str] | None:
    by = re.search(r"by \(([^)]*)\)", query)
    return set(re.findall(r"\w+", by[1])) if by else None


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_a_query_uses_metrics_labels_and_variables_that_exist(name: str, query: str) -> None:
    metrics = metrics_in(query)
    assert metrics or "up{" in query, name
    assert metrics <= LABELS_OF.keys()
    grouped = ",".join(re.findall(r"(?:by|on) \(([^)]*)\)", query))
    used = {*re.findall(r"\w+", grouped), *re.findall(r"(\w+)=~?\"", query)}
    assert used <= PROMETHEUS_LABELS.union(*(LABELS_OF[metric] for metric in metrics))
    assert set(re.findall(r"\$(\w+)", query)) <= {*VARIABLES, "__rate_interval"}


@every_alert
def test_an_alert_states_what_happens_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert name.startswith("Reaper")
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert re.search("`[a-z]", rule["annotations"]["runbook"]), "the first command to type"


@every_alert
def test_a_label_in_an_annotation_is_one_that_the_alert_has(name: str) -> None:
    rule = ALERTS[name]
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert shown <= (labels_kept_by(rule["expr"]) or {"job", "instance", "server"})


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_a_command_in_a_runbook_exists_with_its_options(name: str, words: list[str]) -> None:
    command = reaper.get_command(click.Context(reaper), words[0])
    assert command
    options = {option for each in command.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= options, name


@every_alert
def test_an_alert_is_tested_to_fire_and_not_to_fire(name: str) -> None:
    expected = [each for test in TESTS for each in test["promql_expr_test"]]
    firing = [f'alertname="{name}"' in str(each["exp_samples"]) for each in expected]
    assert any(firing)
    assert not all(firing)


def test_the_tests_of_alerts_use_metrics_that_exist() -> None:
    for series in (each["series"] for test in TESTS for each in test["input_series"]):
        name = series.split("{")[0]
        assert name in LABELS_OF or name == "up"
        assert set(re.findall(r"(\w+)=\"", series)) <= LABELS_OF.get(name, set()) | PROMETHEUS_LABELS, series


def test_every_problem_that_prevents_terminations_has_an_alert() -> None:
    metrics = {name for rule in ALERTS.values() for name in metrics_in(rule["expr"])}
    assert metrics >= {
        *("pg_reaper_slots_used", "pg_reaper_safety_limit_trips_total", "pg_reaper_unreadable_sessions"),
        *("pg_reaper_last_success_timestamp_seconds", "pg_reaper_reload_success", "pg_reaper_failures_total"),
        *("pg_reaper_outcomes_total", "pg_reaper_build_info", "pg_reaper_connected", "pg_reaper_denied"),
        *("pg_reaper_lateness_seconds_bucket", "pg_reaper_notifications_total", "pg_reaper_leader"),
    }


@pytest.mark.parametrize("name", ["scrape.yaml", "scrape-kubernetes.yaml"])
def test_prometheus_scrapes_the_job_that_the_alerts_use(name: str) -> None:
    scrape = document(PROMETHEUS / name)
    jobs = {job for rule in ALERTS.values() for job in re.findall(r"job=\"([^\"]*)\"", rule["expr"])}
    assert scrape["rule_files"] == ["rules.yaml"]
    assert [job["job_name"] for job in scrape["scrape_configs"]] == sorted(jobs)


def test_pods_are_selected_by_their_label_and_the_name_of_their_port() -> None:
    (job,) = document(PROMETHEUS / "scrape-kubernetes.yaml")["scrape_configs"]
    pods = document(DEPLOY / "kubernetes/base/deployment.yaml")["spec"]["template"]
    name, _, value = job["kubernetes_sd_configs"][0]["selectors"][0]["label"].partition("=")
    assert pods["metadata"]["labels"][name] == value
    ports = [port["name"] for each in pods["spec"]["containers"] for port in each.get("ports", ())]
    assert job["relabel_configs"][0]["regex"] in ports


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on the path; the rest was checked")
@pytest.mark.parametrize(
    "arguments", ["check rules rules.yaml", "check config scrape.yaml", "test rules rules_test.yaml"]
)
def test_promtool_accepts_the_rules_and_their_tests_pass(arguments: str) -> None:
    command = [shutil.which("promtool") or "", *arguments.split()]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("title", "query"), PANEL_QUERIES)
def test_a_panel_queries_the_chosen_job_and_server(title: str, query: str) -> None:
    for name, selector in re.findall(r"\b(pg_reaper_\w+)(\{[^}]*\})?", query):
        assert 'job=~"$job"' in selector, title
        assert ('server=~"$server"' in selector) == ("server" in LABELS_OF[name]), title


@every_panel
def test_a_legend_uses_labels_that_the_result_has(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= (labels_kept_by(target["expr"]) or {"instance", "server"})


@every_panel
def test_a_panel_has_a_description(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 40
    assert panel["description"].endswith(".")


def test_every_datasource_of_the_dashboard_is_the_chosen_one() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    grafana = {"type": "grafana", "uid": "-- Grafana --"}  # its own, for annotations made by hand
    assert all(source in (chosen, grafana) for source in datasources(DASHBOARD))
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"


def datasources(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        yield from [node["datasource"]] if "datasource" in node else []
        node = list(node.values())
    for inner in node if isinstance(node, list) else []:
        yield from datasources(inner)


def test_it_imports_as_a_new_dashboard() -> None:
    assert (DASHBOARD["id"], DASHBOARD["uid"]) == (None, "pg-reaper")
    assert DASHBOARD["schemaVersion"] >= 39
    assert set(VARIABLES) == {"datasource", "job", "server"}
    assert all(variable["refresh"] for variable in VARIABLES.values())


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    ids = Counter(panel["id"] for panel in PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    cells = Counter(
        cell
        for at in places
        for cell in product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    )
    assert max(ids.values()) == 1
    assert max(cells.values()) == 1
    assert all(0 <= column < 24 for column, _ in cells)


def test_the_dashboard_shows_every_metric_except_those_that_are_for_alerts() -> None:
    shown = {name for _, query in DASHBOARD_QUERIES for name in metrics_in(query)}
    assert {family.name for family in CATALOGUE if not shown & set(family.series)} == {
        "pg_reaper_interval_seconds",
        "pg_reaper_policies",
        "pg_reaper_denied",
        "pg_reaper_reload_last_success_timestamp_seconds",
    }
