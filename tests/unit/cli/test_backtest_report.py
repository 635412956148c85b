"""The report of a backtest: a page that loads nothing, runs only its own scripts, and shows names as text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any, Final

import pytest

from reaper.cli.backtest_html import report
from reaper.cli.backtest_result import as_document
from reaper.config import read
from reaper.insight.backtest.compare import Comparison
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.policy.time import SECOND, Duration
from tests.unit.insight.readings import recorded
from tests.unit.policy.build import NOW, later, session, snapshot

HOSTILE: Final = "<script>alert(1)</script>\x1b[2J\u202e\"'&{{7*7}}$x^2$"
FILE: Final = b"""\
version: 1
policies:
  - name: leaked
    match: {state: [idle], idle_for: 10m}
"""


def documents(*names: str) -> list[Any]:
    settings = read(FILE, file="policies.yaml")
    backtests = [
        Backtest("orders", settings.rules, Rhythm(Duration(10 * SECOND), Duration(SECOND))) for _ in names
    ]
    comparison = Comparison(backtests[0].label)
    stream = [
        snapshot(session(7, application=HOSTILE), session(8), at=later(NOW, by=number * 10 * SECOND))
        for number in range(5)
    ]
    for each in recorded(stream, every=10 * SECOND):
        steps = [backtest.read(each) for backtest in backtests]
        comparison.read(each, steps[0], steps[-1])
    for backtest in backtests:
        backtest.end()
    comparison.end()
    sides = list(zip(names, backtests, strict=True))
    return [as_document(HOSTILE, sides, comparison if len(names) > 1 else None, anonymous=True)]


class Page(HTMLParser):
    """The tags of a page, its text, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 (the parser's signature)
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[data] = self.tags[-1][1].get("type") or ""
        elif self._inside != "style":
            self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report(documents("old.yaml", HOSTILE)))


def test_it_loads_nothing(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "img", "iframe", "object", "embed", "form", "base", "a"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "href", "xlink:href"} & attributes.keys()


def test_its_policy_runs_its_two_scripts_and_nothing_else(page: Page) -> None:
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    run = [script for script, kind in page.scripts.items() if kind != "application/json"]
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in run]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"'sha256-([^']*)'", policy) == digests
    assert len(digests) == 2
    assert "script-src 'unsafe" not in policy


def test_a_hostile_name_is_harmless_text(page: Page) -> None:
    assert page.text.count("<script>alert(1)</script>\\x1b[2J\\u202e\"'&{{7*7}}$x^2$") >= 4
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert not [script for script in page.scripts if "alert(1)" in script]


def test_it_says_what_the_policies_would_have_done(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "These policies would have terminated 2 sessions of 2 applications" in text
    assert "Names are aliases." in text
    assert "New policies beside old ones" in text


def test_each_policy_file_has_charts_of_slots_and_terminations(page: Page) -> None:
    charts = [json.loads(script) for script, kind in page.scripts.items() if kind == "application/json"]
    assert [[trace["name"] for trace in chart] for chart in charts] == [
        ["as it was", "as it would have been", "usable by ordinary roles"],
        ["leaked"],
    ]  # the same for both files, and so the parser found the same scripts twice
    assert len([tag for tag, attributes in page.tags if attributes.get("class") == "chart"]) == 4


def test_times_outside_the_calendar_have_tables_and_no_chart() -> None:
    (found,) = documents("a.yaml")
    (side,) = found["sides"]
    beyond = {**side["course"], "steps": [{**step, "at": f"{2**70}us"} for step in side["course"]["steps"]]}
    page = Page(report([{**found, "sides": [{**side, "course": beyond}]}]))
    assert "chart" not in {attributes.get("class") for _, attributes in page.tags}
    assert "would have terminated" in page.text


def test_the_same_history_makes_the_same_page() -> None:
    assert report(documents("a.yaml")) == report(documents("a.yaml"))
