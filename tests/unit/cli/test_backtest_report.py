"""The report of a backtest: a page that loads nothing, runs nothing, and shows names as what they are."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any, Final

import pytest

from reaper.cli.backtest_html import report
from reaper.cli.backtest_result import Replayed, Side, account
from reaper.config import read
from reaper.insight.backtest.compare import Versus
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.policy.time import SECOND, Span
from tests.unit.insight.readings import readings
from tests.unit.policy.build import NOW, later, session, snapshot

HOSTILE: Final = "<script>alert(1)</script>\x1b[2J\u202e\"'&{{7*7}}$x^2$"
FILE: Final = b"""\
version: 1
policies:
  - name: leaked
    match: {state: [idle], idle_for: 10m}
"""


def accounts(*names: str, steps: int = 5, apart: int = 10) -> list[Any]:
    settings = read(FILE, file="policies.yaml")
    backtests = [Backtest("orders", settings.rules, Rhythm(Span(10 * SECOND), Span(SECOND))) for _ in names]
    versus = Versus(backtests[0].name)
    stream = [
        snapshot(session(7, application=HOSTILE), session(8), at=later(NOW, by=number * apart * SECOND))
        for number in range(steps)
    ]
    for reading in readings(stream, every=apart * SECOND):
        stretches = [backtest.read(reading) for backtest in backtests]
        versus.read(reading, stretches[0], stretches[-1])
    for backtest in backtests:
        backtest.end()
    versus.end()
    sides = [Side(name=name, settings=settings) for name in names]
    replayed = Replayed(
        server=HOSTILE,
        anonymous=True,
        sides=sides,
        backtests=backtests,
        versus=versus if len(names) > 1 else None,
    )
    return [account(replayed)]


class Page(HTMLParser):
    """What stands in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 (the parser's signature)
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.style += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report(accounts("old.yaml", HOSTILE)))


def test_it_loads_nothing_and_runs_nothing(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a"}
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in page.style
    assert "url(" not in page.style


def test_its_policy_allows_its_own_style_and_nothing_else(page: Page) -> None:
    (policy,) = [
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_hostile_name_is_text_and_harmless(page: Page) -> None:
    shown = "<script>alert(1)</script>\\x1b[2J\\u202e\"'&{{7*7}}$x^2$"
    assert page.text.count(shown) >= 4
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_it_says_what_it_is_about(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "These policies would have ended 2 sessions of 2 applications" in text
    assert "Names are pseudonyms." in text
    assert "What the new ones do that the old ones do not" in text


def test_each_chart_is_there_for_a_desk_and_for_a_phone_and_every_colour_is_the_pages(page: Page) -> None:
    charts = [attributes for tag, attributes in page.tags if "chart" in (attributes.get("class") or "")]
    assert [attributes["class"] for attributes in charts] == ["chart wide", "chart narrow"] * 4
    painted = {attributes.get(name) for _, attributes in page.tags for name in ("fill", "stroke")} - {None}
    assert not [colour for colour in painted if re.fullmatch(r"#0[0-9a-f]{5}", str(colour))]
    classes = {name for _, attributes in page.tags for name in (attributes.get("class") or "").split()}
    drawn = {name for name in classes if name.startswith(("fill-", "stroke-"))}
    assert drawn
    assert [name for name in drawn if f".{name} " not in page.style] == []


def test_moments_outside_the_calendar_have_tables_and_no_chart() -> None:
    (found,) = accounts("a.yaml")
    (side,) = found["sides"]
    beyond = {**side["course"], "steps": [{**step, "at": f"{2**70}us"} for step in side["course"]["steps"]]}
    page = Page(report([{**found, "sides": [{**side, "course": beyond}]}]))
    assert "chart wide" not in {attributes.get("class") for _, attributes in page.tags}
    assert "would have ended" in page.text


def test_the_same_history_makes_the_same_page() -> None:
    assert report(accounts("a.yaml")) == report(accounts("a.yaml"))
