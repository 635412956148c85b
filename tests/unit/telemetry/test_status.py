"""The status page and /usage, as they are served."""

import json
from html.parser import HTMLParser

import pytest

from reaper.policy.json import as_document
from reaper.policy.text import plain
from reaper.telemetry.http.page import render
from reaper.telemetry.http.server import MAX_CONNECTIONS
from reaper.telemetry.http.views import Overview

from . import sights
from .pages import Pages, visit


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def usual(name: str | None) -> Overview | None:
    return sights.usual() if name in {None, "orders"} else None


@pytest.mark.parametrize("sight", [sights.usual, sights.full, sights.empty, sights.hostile, sights.fleet])
@pytest.mark.parametrize("paused", [True, False])
def test_it_is_html_without_scripts_styles_in_place_or_anything_from_elsewhere(sight, paused) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    page = Seen(render(sight(), paused=paused))

    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "style", "iframe", "object", "embed", "form", "base"})
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            assert ":" not in (attributes.get(name) or "").partition("?")[0]
    refreshes = [each for tag, each in page.elements if tag == "meta" and "http-equiv" in each]
    assert bool(refreshes) is not paused


def test_names_are_text_on_one_line_each() -> None:
    page = Seen(render(sights.hostile(), paused=True))

    assert "".join(page.texts).replace("\n", "").isprintable()
    for name in sights.HOSTILE:
        assert plain(name) in page.texts


def test_a_page_is_small_whatever_is_there() -> None:
    many = [f"application {number}" for number in range(3_000)]
    crowd = sights.overview(sights.view(sights.usage(*sights.named(many), total=5_000)))

    assert len(render(crowd, paused=False)) < 100_000
    assert len(render(sights.fleet(100), paused=False)) < 300_000


def test_the_pages_are_served_as_what_they_are_under_a_strict_policy() -> None:
    async def scene(pages: Pages) -> None:
        for path, kind in {
            "/": "text/html; charset=utf-8",
            "/?server=orders&pause=1": "text/html; charset=utf-8",
            "/style.css": "text/css; charset=utf-8",
            "/icon.svg": "image/svg+xml",
            "/usage": "application/json",
        }.items():
            answer = await pages.ask(path)
            assert (answer.status, answer.headers["content-type"]) == (200, kind)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self';")
            assert "unsafe" not in policy

    visit(scene, overview=usual)


def test_a_server_that_is_not_there_is_404() -> None:
    async def scene(pages: Pages) -> None:
        for path in ("/?server=payroll", "/usage?server=payroll", f"/usage?server={'x' * 8_000}", "/nothing"):
            assert (await pages.ask(path)).status == 404

    visit(scene, overview=usual)


def test_each_session_of_a_server_is_told_to_who_names_it() -> None:
    asked: list[str] = []

    async def rows(name: str) -> bytes | None:
        asked.append(name)
        return b'{"snapshot": 1}' if name == "orders" else None

    async def scene(pages: Pages) -> None:
        for _ in range(3):
            answer = await pages.ask("/snapshot?server=orders")
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        for path in ("/snapshot", "/snapshot?server=payroll", f"/snapshot?server={'x' * 8_000}"):
            assert (await pages.ask(path)).status == 404

    visit(scene, snapshot=rows)
    assert asked == ["orders", "", "payroll", "x" * 200]


def test_usage_is_the_same_as_json() -> None:
    async def scene(pages: Pages) -> None:
        answer = await pages.ask("/usage")
        assert answer.body.isascii()
        assert json.loads(answer.body) == {"usage": 1, "overview": as_document(sights.usual())}

    visit(scene, overview=usual)


def test_a_crowd_looks_round_once() -> None:
    looks: list[str | None] = []

    async def look(name: str | None) -> Overview:
        looks.append(name)
        return sights.usual()

    async def scene(pages: Pages) -> None:
        for path in ["/", "/usage", "/?pause=1"] * (MAX_CONNECTIONS // 4):
            assert (await pages.ask(path)).status == 200
        assert looks == [None]

    visit(scene, overview=look)
