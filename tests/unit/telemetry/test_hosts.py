"""A port on loopback answers those who ask for it by a name that no stranger can make lead there."""

import pytest
from starlette.applications import Starlette

from reaper.telemetry.http.server import check_host

from .pages import Answer, Pages, visit


async def asked(pages: Pages, *hosts: str) -> Answer:
    told = "".join(f"Host: {host}\r\n" for host in hosts)
    version = "1.1" if hosts else "1.0"
    return Answer.of(await pages.say(f"GET /livez HTTP/{version}\r\n{told}\r\n".encode()))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9432",
        "LocalHost.:9432",
        "127.0.0.1:9432",
        "127.0.0.1",
        "[::1]:9432",
        "[::1]",
        "192.0.2.7:80",
        "db-1.internal:9432",
        "DB-1.Internal.",
    ],
)
def test_an_address_localhost_and_a_name_that_was_allowed_are_answered(host: str) -> None:
    async def scene(pages: Pages) -> None:
        assert (await asked(pages, host)).status == 200

    visit(scene, names=("db-1.internal",))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9432",
        "localhost.evil.example",
        "127.0.0.1.evil.example:9432",
        "localhost:80:9432",
        "evil.example:localhost",
        "[evil]",
        "",
    ],
)
def test_a_name_that_a_web_page_could_make_lead_here_is_refused_in_words(host: str) -> None:
    async def scene(pages: Pages) -> None:
        answer = await asked(pages, host)
        assert answer.status == 421
        assert "--listen-name NAME" in answer.body
        assert "x-content-type-options" in answer.headers

    visit(scene)


def test_who_says_no_host_is_no_browser() -> None:
    async def scene(pages: Pages) -> None:
        assert (await asked(pages)).status == 200

    visit(scene)


def test_of_several_hosts_none_hides_another() -> None:
    async def scene(pages: Pages) -> None:
        assert (await asked(pages, "localhost", "evil.example")).status in {400, 421}

    visit(scene)


def test_a_port_that_is_open_to_others_answers_to_whatever_they_call_it() -> None:
    pages = Starlette()
    assert [check_host(pages, at=at) is pages for at in ("127.0.0.1", "::1")] == [False, False]
    assert [check_host(pages, at=at) is pages for at in ("::", "192.0.2.7")] == [True, True]
