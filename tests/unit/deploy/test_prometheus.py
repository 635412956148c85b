"""The alert rules ask for metrics that exist, say what to do, and fire when they should.

Without promtool (Debian: `prometheus`) on the path, everything but the firing itself is checked.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from reaper.cli.app import reaper
from reaper.telemetry.metrics.catalogue import CATALOGUE, NAMES

HERE: Final = Path(__file__).parents[3] / "deploy/prometheus"
RULES: Final = yaml.safe_load((HERE / "rules.yaml").read_text())
TESTS: Final = yaml.safe_load((HERE / "rules_test.yaml").read_text())["tests"]
SCRAPE: Final = ("scrape.yaml", "scrape-kubernetes.yaml")
ALERTS: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]
}
PROMETHEUS_OWN: Final = {"job", "instance", "alertname", "alertstate", "severity", "le"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_metrics_and_labels_that_exist(name: str) -> None:
    asked = ALERTS[name]["expr"]
    metrics = set(re.findall(r"\bpg_reaper_\w+", asked))
    labels = {label for family in CATALOGUE for label in family.labels if metrics & set(family.series)}
    grouped = ",".join(re.findall(r"(?:by|on) \(([^)]*)\)", asked))
    matched = re.findall(r"(\w+)=~?\"", asked)

    assert metrics <= NAMES
    assert metrics or "up{" in asked
    assert {*re.findall(r"\w+", grouped), *matched} <= labels | PROMETHEUS_OWN


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_happens_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]

    assert name.startswith("Reaper")
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert re.search("`[a-z]", rule["annotations"]["runbook"]), "the first command to type"


@pytest.mark.parametrize("name", ALERTS)
def test_a_label_in_words_is_one_that_the_alert_has(name: str) -> None:
    rule = ALERTS[name]
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    by = re.search(r"by \(([^)]*)\)", rule["expr"])
    kept = set(re.findall(r"\w+", by[1])) if by else {"job", "instance", "server"}

    assert shown <= kept


COMMANDS: Final = [
    (name, re.sub(r"\{\{.*?\}\}", "SERVER", quoted).split())
    for name, rule in ALERTS.items()
    for quoted in re.findall("`reaper ([^`]*)`", rule["annotations"]["runbook"])
]


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_a_command_in_a_runbook_is_one_that_can_be_typed(name: str, words: list[str]) -> None:
    command = reaper.get_command(click.Context(reaper), words[0])
    assert command
    options = {option for each in command.params for option in each.opts}

    assert {word for word in words if word.startswith("--")} <= options, name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_to_fire_and_not_to_fire(name: str) -> None:
    asked = [expected for test in TESTS for expected in test["promql_expr_test"]]
    firing = [f'alertname="{name}"' in str(each["exp_samples"]) for each in asked]

    assert any(firing)
    assert not all(firing)


def test_the_tests_of_alerts_use_metrics_that_exist() -> None:
    series = [each["series"] for test in TESTS for each in test["input_series"]]
    names = {re.split("[{]", one)[0] for one in series}
    wanted = {name: {*family.labels, *PROMETHEUS_OWN} for family in CATALOGUE for name in family.series}

    assert names <= NAMES | {"up"}
    for one in series:
        name = one.split("{")[0]
        assert set(re.findall(r"(\w+)=\"", one)) <= wanted.get(name, PROMETHEUS_OWN), one


def test_nothing_that_stops_the_work_is_without_an_alert() -> None:
    metrics = {name for rule in ALERTS.values() for name in re.findall(r"\bpg_reaper_\w+", rule["expr"])}

    assert metrics >= {
        *("pg_reaper_slots_used", "pg_reaper_safety_limit_trips_total", "pg_reaper_unreadable_sessions"),
        *("pg_reaper_last_success_timestamp_seconds", "pg_reaper_reload_success", "pg_reaper_failures_total"),
        *("pg_reaper_outcomes_total", "pg_reaper_build_info", "pg_reaper_connected", "pg_reaper_denied"),
        *("pg_reaper_lateness_seconds_bucket", "pg_reaper_notifications_total", "pg_reaper_leader"),
    }


@pytest.mark.parametrize("name", SCRAPE)
def test_prometheus_is_told_of_the_job_that_the_alerts_ask_for(name: str) -> None:
    told = yaml.safe_load((HERE / name).read_text())
    asked = {job for rule in ALERTS.values() for job in re.findall(r"job=\"([^\"]*)\"", rule["expr"])}

    assert told["rule_files"] == ["rules.yaml"]
    assert [job["job_name"] for job in told["scrape_configs"]] == sorted(asked)


def test_pods_are_found_by_the_label_and_the_port_that_they_have() -> None:
    (job,) = yaml.safe_load((HERE / "scrape-kubernetes.yaml").read_text())["scrape_configs"]
    pods = yaml.safe_load((HERE.parent / "kubernetes/base/deployment.yaml").read_text())["spec"]["template"]
    name, _, value = job["kubernetes_sd_configs"][0]["selectors"][0]["label"].partition("=")
    ports = [port["name"] for each in pods["spec"]["containers"] for port in each.get("ports", ())]

    assert pods["metadata"]["labels"][name] == value
    assert job["relabel_configs"][0]["regex"] in ports


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on the path; the rest was checked")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yaml"),
        ("check", "config", "scrape.yaml"),
        ("test", "rules", "rules_test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    assert promtool
    done = subprocess.run([promtool, *arguments], cwd=HERE, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
