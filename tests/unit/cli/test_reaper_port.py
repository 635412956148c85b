"""Whoever answers at a reaper's port: read for a few seconds, believed in nothing, followed nowhere."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from reaper.cli.errors import ServerTrouble
from reaper.cli.service_client import NoReaper, ask_for_looks, ask_for_verdicts, ask_reaper, told_at
from reaper.insight.advice.evidence import Watching
from reaper.policy.json import as_document
from reaper.policy.time import Span
from reaper.telemetry.http.views import FORMAT
from tests.unit.telemetry.sights import line, overview, usual, view

from .impostor import Says, answer, dripping, impostor, once

STRANGE: Final = [
    "NaN",
    "Infinity",
    "-1",
    "1e308",
    "1" + "0" * 400,
    '"nan"',
    "null",
    "[]",
    "true",
    '"\\u001b[2J"',
]


@pytest.mark.parametrize(
    "says",
    [
        dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b" "),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n[", b"1,"),
        dripping(b"HTTP/1.1 200 OK\r\nx: ", b"x"),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["a body", "a body without end", "a header", "promises"],
)
def test_who_drips_is_not_listened_to_for_longer_than_we_have(says: Says) -> None:
    with impostor(says) as url, pytest.raises(NoReaper, match=r"no whole answer within 0\.2s$"):
        told_at(url, "/usage", patience=0.2)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (once(b"\x1b[31mred\r\n\r\nno reaper\r\n\r\n"), "no reaper answers at URL: "),
        (once(), "no reaper answers at URL: "),
        (answer(b"", b"302 Found\r\nlocation: /usage"), "URL answers 302, as no reaper of this version does"),
        (answer(b"", b"500 Oh"), "URL answers 500, as no reaper of this version does"),
        (
            answer(b"", b"421 No"),
            "URL answers to addresses, to localhost, and to its --listen-name alone",
        ),
        (answer(b"[" * 100_000), "URL answers, and not as a reaper of this version does"),
        (answer(b'{"usage": 2, "rehearsal": 2}'), "URL answers, and not as a reaper of this version does"),
        (answer(b"\xff\xfe"), "URL answers, and not as a reaper of this version does"),
        (answer(b"null"), "URL answers, and not as a reaper of this version does"),
    ],
)
@pytest.mark.parametrize(
    "ask", [lambda url: ask_reaper(url, None), ask_for_verdicts], ids=["usage", "verdicts"]
)
def test_what_is_no_reapers_answer_is_one_sentence(
    ask: Callable[[str], object], says: Says, told: str
) -> None:
    with impostor(says) as url, pytest.raises((NoReaper, ServerTrouble)) as refused:
        ask(url)

    assert str(getattr(refused.value, "message", refused.value)).startswith(told.replace("URL", url))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize(
    "path", ["up_s", "shown/usage/census/openings/total", "shown/usage/census/applications/groups/0/count"]
)
def test_a_number_that_is_none_is_no_reapers(path: str, strange: str) -> None:
    told: dict[str, Any] = {"usage": FORMAT, "overview": as_document(usual())}
    *way, last = [int(key) if key.isdigit() else key for key in ("overview", *path.split("/"))]
    place: Any = told
    for key in way:
        place = place[key]
    place[last] = "PLACE"
    body = json.dumps(told).replace('"PLACE"', strange).encode()

    with (
        impostor(answer(body)) as url,
        pytest.raises(NoReaper, match=r"not as a reaper of this version does$"),
    ):
        ask_reaper(url, None)


def test_what_a_reaper_says_is_understood() -> None:
    body = json.dumps({"usage": FORMAT, "overview": as_document(usual())}).encode()

    with impostor(answer(body)) as url:
        assert ask_reaper(url, None) == usual()


def test_of_several_servers_one_must_be_named_to_be_advised_about() -> None:
    told = overview(None, line("orders"), line("billing"))
    body = json.dumps({"usage": FORMAT, "overview": as_document(told)}).encode()

    with impostor(answer(body)) as url, pytest.raises(ServerTrouble) as refused:
        ask_for_looks(url, None, Watching(), Span(0))

    said = f"the reaper at {url} looks after orders, billing: say with --server which one is meant"
    assert refused.value.message == said


def test_what_is_no_look_of_a_reaper_is_believed_in_nothing() -> None:
    body = json.dumps({"usage": FORMAT, "overview": as_document(usual())}).encode()

    with impostor(answer(body)) as url, pytest.raises(ServerTrouble, match="not as a reaper of this version"):
        ask_for_looks(url, None, Watching(), Span(0))


def test_a_reaper_that_has_not_seen_a_server_itself_says_why() -> None:
    away = line("billing", used=None, state="away", why="connection refused")
    told = overview(view(None, name="billing"), line("orders"), away)
    body = json.dumps({"usage": FORMAT, "overview": as_document(told)}).encode()

    with impostor(answer(body)) as url, pytest.raises(NoReaper) as refused:
        ask_reaper(url, "billing")

    assert str(refused.value) == f"the reaper at {url} has not seen billing: away: connection refused"
