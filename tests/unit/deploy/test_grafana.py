"""The dashboard asks for metrics that exist, of whichever Prometheus it is imported beside."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from reaper.telemetry.metrics.catalogue import CATALOGUE, NAMES

FILE: Final = Path(__file__).parents[3] / "deploy/grafana/dashboard.json"
DASHBOARD: Final[dict[str, Any]] = json.loads(FILE.read_text())
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
SHOWN: Final = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES: Final = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
PROMETHEUS_OWN: Final = {"job", "instance", "le"}
BUILT_IN: Final = {"__rate_interval"}

EXPRESSIONS: Final = [(panel["title"], target["expr"]) for panel in SHOWN for target in panel["targets"]]
ASKED: Final = [
    *EXPRESSIONS,
    *((name, each["query"]["query"]) for name, each in VARIABLES.items() if each["type"] == "query"),
    *((each["name"], each["expr"]) for each in DASHBOARD["annotations"]["list"] if "expr" in each),
]


@pytest.mark.parametrize(("title", "asked"), ASKED)
def test_every_question_is_about_metrics_and_labels_that_exist(title: str, asked: str) -> None:
    metrics = set(re.findall(r"\bpg_reaper_\w+", asked))
    labels = {label for family in CATALOGUE for label in family.labels if metrics & set(family.series)}
    grouped = ",".join(re.findall(r"by \(([^)]*)\)", asked))
    matched = re.findall(r"(\w+)=~?\"", asked)

    assert metrics, title
    assert metrics <= NAMES
    assert {*re.findall(r"\w+", grouped), *matched} <= labels | PROMETHEUS_OWN


@pytest.mark.parametrize(("title", "asked"), ASKED)
def test_every_variable_that_is_used_exists(title: str, asked: str) -> None:
    assert set(re.findall(r"\$(\w+)", asked)) <= {*VARIABLES, *BUILT_IN}, title


@pytest.mark.parametrize(("title", "asked"), EXPRESSIONS)
def test_every_question_is_about_the_chosen_job_and_server(title: str, asked: str) -> None:
    for name, selector in re.findall(r"\b(pg_reaper_\w+)(\{[^}]*\})?", asked):
        has_server = any(name in family.series and "server" in family.labels for family in CATALOGUE)
        assert 'job=~"$job"' in selector, title
        assert ('server=~"$server"' in selector) == has_server, title


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_the_answer_has(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        kept = [set(re.findall(r"\w+", by)) for by in re.findall(r"by \(([^)]*)\)", target["expr"])[:1]]
        assert shown <= (kept[0] if kept else {"instance", "server"})


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_tells_a_tired_person_what_it_shows(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 40
    assert panel["description"].endswith(".")


def test_the_datasource_is_the_one_that_is_chosen() -> None:
    found = {json.dumps(source, sort_keys=True) for source in datasources(DASHBOARD)}
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    grafana = {"type": "grafana", "uid": "-- Grafana --"}  # its own, for annotations made by hand

    assert found == {json.dumps(chosen), json.dumps(grafana)}
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"


def datasources(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "datasource":
                yield inner
            yield from datasources(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from datasources(inner)


def test_it_imports_as_a_new_dashboard() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "pg-reaper"
    assert DASHBOARD["schemaVersion"] >= 39
    assert set(VARIABLES) == {"datasource", "job", "server"}
    assert all(VARIABLES[name]["refresh"] for name in VARIABLES)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = Counter(panel["id"] for panel in PANELS)
    cells = Counter(cell for panel in PANELS for cell in covered(panel["gridPos"]))

    assert max(ids.values()) == 1
    assert max(cells.values()) == 1
    assert all(0 <= column < 24 for column, _ in cells)


def covered(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for column in range(place["x"], place["x"] + place["w"]):
        for line in range(place["y"], place["y"] + place["h"]):
            yield column, line


def test_everything_that_the_reaper_tells_is_shown_somewhere() -> None:
    shown = {name for _, asked in ASKED for name in re.findall(r"\bpg_reaper_\w+", asked)}
    unshown = {family.name for family in CATALOGUE if not shown & set(family.series)}

    assert unshown == {
        "pg_reaper_interval_seconds",  # for alerts
        "pg_reaper_policies",
        "pg_reaper_denied",  # an alert of its own
        "pg_reaper_reload_last_success_timestamp_seconds",
    }
