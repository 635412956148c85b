"""The client of a running service: answers are bounded in time and size, and checked before they are used."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from reaper.cli.service_client import NoService, ServiceClient
from reaper.policy.text import as_document
from reaper.policy.time import Duration
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
    ids=["a body", "a body without end", "a header", "interim answers"],
)
def test_a_slow_answer_is_given_up_after_the_timeout(says: Says) -> None:
    with impostor(says) as url, pytest.raises(NoService, match=r"no complete answer within 0\.2s$"):
        ServiceClient(url, timeout=0.2).get("/usage")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (once(b"\x1b[31mred\r\n\r\nno reaper\r\n\r\n"), "no reaper answers at URL: "),
        (once(), "no reaper answers at URL: "),
        (
            answer(b"", b"302 Found\r\nlocation: /usage"),
            "URL answers 302, which no reaper of this version does",
        ),
        (answer(b"", b"500 Oh"), "URL answers 500, which no reaper of this version does"),
        (
            answer(b"", b"421 No"),
            "URL answers to addresses, localhost and the names of its --listen-name only",
        ),
        (answer(b"[" * 100_000), "URL answers, but not as a reaper of this version does"),
        (answer(b'{"usage": 2, "assessment": 2}'), "URL answers, but not as a reaper of this version does"),
        (answer(b"\xff\xfe"), "URL answers, but not as a reaper of this version does"),
        (answer(b"null"), "URL answers, but not as a reaper of this version does"),
    ],
)
@pytest.mark.parametrize(
    "request_answer",
    [lambda client: client.usage(None), ServiceClient.assessment],
    ids=["usage", "assessment"],
)
def test_an_answer_of_another_program_is_one_sentence(
    request_answer: Callable[[ServiceClient], object], says: Says, told: str
) -> None:
    with impostor(says) as url, pytest.raises(NoService) as refused:
        request_answer(ServiceClient(url))

    assert refused.value.message.startswith(told.replace("URL", url))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize(
    "path", ["up_s", "shown/usage/census/openings/total", "shown/usage/census/applications/groups/0/count"]
)
def test_a_number_out_of_range_is_refused(path: str, strange: str) -> None:
    told: dict[str, Any] = {"usage": FORMAT, "overview": as_document(usual())}
    *way, last = [int(key) if key.isdigit() else key for key in ("overview", *path.split("/"))]
    place: Any = told
    for key in way:
        place = place[key]
    place[last] = "PLACE"
    body = json.dumps(told).replace('"PLACE"', strange).encode()

    with (
        impostor(answer(body)) as url,
        pytest.raises(NoService, match=r"not as a reaper of this version does$"),
    ):
        ServiceClient(url).usage(None)


def test_the_answer_of_a_service_is_read_back() -> None:
    body = json.dumps({"usage": FORMAT, "overview": as_document(usual())}).encode()

    with impostor(answer(body)) as url:
        assert ServiceClient(url).usage(None) == usual()


def test_of_several_servers_one_must_be_named_for_snapshots() -> None:
    told = overview(None, line("orders"), line("billing"))
    body = json.dumps({"usage": FORMAT, "overview": as_document(told)}).encode()

    with impostor(answer(body)) as url, pytest.raises(NoService) as refused:
        list(ServiceClient(url).snapshots(None, Duration(0)))

    said = f"the reaper at {url} serves orders, billing\nhint: choose one with --server NAME"
    assert refused.value.message == said


def test_an_answer_that_is_not_a_snapshot_is_refused() -> None:
    body = json.dumps({"usage": FORMAT, "overview": as_document(usual())}).encode()

    with impostor(answer(body)) as url, pytest.raises(NoService, match="not as a reaper of this version"):
        list(ServiceClient(url).snapshots(None, Duration(0)))


def test_a_server_without_a_snapshot_comes_with_the_reason() -> None:
    away = line("billing", used=None, state="away", why="connection refused")
    told = overview(view(None, name="billing"), line("orders"), away)
    body = json.dumps({"usage": FORMAT, "overview": as_document(told)}).encode()

    with impostor(answer(body)) as url, pytest.raises(NoService) as refused:
        ServiceClient(url).usage("billing")

    assert (
        refused.value.message == f"the reaper at {url} has no snapshot of billing: away: connection refused"
    )
