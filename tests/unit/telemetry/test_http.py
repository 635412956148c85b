"""The pages answer probes and scrapers, and nobody can keep them from it."""

import asyncio
import socket
from threading import Event

import pytest

from reaper.telemetry.http.routes import Health
from reaper.telemetry.http.server import MAX_CONNECTIONS, listen
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.exposition import TEXT, MetricsPage

from .pages import AT_ONCE, LOOPBACK, Answer, Pages, serving, visit

REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_healthy_service_answers_200() -> None:
    async def scene(pages: Pages) -> None:
        for path in ("/livez", "/readyz"):
            answer = await pages.ask(path)
            assert (answer.status, answer.content) == (200, {"ok": True, "reasons": {}})

    visit(scene)


def test_a_service_that_is_not_well_answers_503_and_says_why() -> None:
    async def scene(pages: Pages) -> None:
        assert (await pages.ask("/livez")).status == 200
        answer = await pages.ask("/readyz")
        assert answer.status == 503
        assert answer.content == {"ok": False, "reasons": {"ok": "away", "orders": "refused: \\x1b[2J"}}

    reasons = {"ok": "away", "orders": "refused: \x1b[2J"}
    visit(scene, readyz=lambda: Health(good=False, reasons=reasons))


def test_a_reason_that_utf_8_cannot_carry_is_told_all_the_same() -> None:
    async def scene(pages: Pages) -> None:
        answer = await pages.ask("/livez")
        assert (answer.status, answer.content["reasons"]) == (503, {"orders": "\\ud800"})

    visit(scene, livez=lambda: Health(good=False, reasons={"orders": "\ud800"}))


def test_head_answers_like_get_without_the_page() -> None:
    async def scene(pages: Pages) -> None:
        for path in ("/metrics", "/livez", "/readyz"):
            got, headed = await pages.ask(path), await pages.ask(path, method="HEAD")
            assert (headed.status, headed.headers, headed.body) == (got.status, got.headers, "")

    visit(scene)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MAKE"])
def test_nothing_but_get_and_head_is_allowed(method: str) -> None:
    async def scene(pages: Pages) -> None:
        for path in ("/metrics", "/livez", "/readyz"):
            answer = await pages.ask(path, method=method)
            assert answer.status == 405
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}

    visit(scene)


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "//metrics", "/metrics/x", "/../etc/passwd", "/docs", "/openapi.json", "/%00"]
)
def test_there_are_no_other_pages_and_no_redirects(path: str) -> None:
    async def scene(pages: Pages) -> None:
        answer = await pages.ask(path)
        assert answer.status == 404
        assert "location" not in answer.headers

    visit(scene)


def test_every_answer_is_for_programs_and_not_for_browsers() -> None:
    async def scene(pages: Pages) -> None:
        for path in ("/metrics", "/livez", "/nowhere"):
            headers = (await pages.ask(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["connection"] == "close"
            assert "server" not in headers
            assert "access-control-allow-origin" not in headers

    visit(scene)


def test_a_scraper_gets_the_form_that_it_asks_for() -> None:
    async def scene(pages: Pages) -> None:
        old = await pages.ask("/metrics", Accept="text/plain;version=0.0.4")
        new = await pages.ask(
            "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        )
        assert old.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert new.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert new.body.endswith("# EOF\n")
        assert "# EOF" not in old.body
        assert 'reaper_build_info{version="1.2.3"} 1.0' in old.body

    visit(scene)


def test_many_scrapers_at_once_all_get_the_page() -> None:
    async def scene(pages: Pages) -> None:
        answers = await asyncio.gather(*(pages.ask("/metrics") for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20

    visit(scene)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GE", id="half a word"),
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: he", id="half a request"),
        pytest.param(b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n", id="no body yet"),
    ],
)
def test_whoever_dawdles_is_shown_the_door(said: bytes) -> None:
    async def scene(pages: Pages) -> None:
        reader, writer = await pages.come()
        writer.write(said)
        assert await until_the_end(reader) == b""
        writer.close()

    visit(scene, patience=AT_ONCE)


def test_whoever_hardly_reads_is_shown_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    page = MetricsPage(b"x" * 30_000_000, TEXT)

    async def scene(pages: Pages) -> None:
        reader, writer = await pages.come()
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(await until_the_end(reader, sip=100)) < len(page.body)
        writer.close()

    metrics = Metrics("1.2.3")
    monkeypatch.setattr(metrics, "exposition", lambda _: page)
    visit(scene, patience=AT_ONCE, metrics=metrics)


async def until_the_end(reader: asyncio.StreamReader, *, sip: int = 1_000) -> bytes:
    """All that comes before the conversation ends, one way or another."""
    raw = bytearray()
    try:
        while piece := await reader.read(sip):
            raw += piece
    except ConnectionResetError:
        pass
    return bytes(raw)


def test_a_body_that_never_comes_is_not_waited_for() -> None:
    async def scene(pages: Pages) -> None:
        answer = Answer.of(
            await pages.say(b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nslow")
        )
        assert answer.status == 405

    visit(scene)


def test_silent_visitors_in_all_places_do_not_keep_a_probe_out() -> None:
    async def scene(pages: Pages) -> None:
        silent = [await pages.come() for _ in range(3 * MAX_CONNECTIONS)]
        assert (await pages.ask("/livez")).status == 200
        first, _ = silent[0]
        assert await until_the_end(first) == b"", "the one who has been here longest goes"
        for _, writer in silent:
            writer.close()

    visit(scene)


def test_there_is_one_answer_a_connection_however_much_is_asked() -> None:
    async def scene(pages: Pages) -> None:
        raw = await pages.say(REQUEST * 5)
        assert raw.count(b"HTTP/1.1 200") == 1

    visit(scene)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 90, id="TLS"),
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET /livez HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET /live z HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a space"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", id="beyond ASCII"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", id="no length"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, id="a header without end"),
        pytest.param(b"GET /" + b"a" * 100_000, id="a path without end"),
    ],
)
def test_what_is_no_request_is_refused_without_a_line_in_the_log(
    said: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(pages: Pages) -> None:
        reader, writer = await pages.come()
        writer.write(said)
        # A visitor who is refused while still talking may be cut off before hearing why.
        raw = await until_the_end(reader)
        assert raw[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 431", b""}
        writer.close()
        assert (await pages.ask("/livez")).status == 200
        assert pages.logged.getvalue() == ""

    visit(scene)
    assert caplog.records == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rubbish", [b"\0\0\0\r\n\r\n", b"zzz\r\n", REQUEST[:-2] + b"\0: \0\r\n\r\n"])
def test_rubbish_after_a_request_spoils_nothing(rubbish: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(pages: Pages) -> None:
        chunked = b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for begun in (REQUEST, chunked):
            reader, writer = await pages.come()
            writer.write(begun + rubbish)
            await until_the_end(reader)
            writer.close()
        assert (await pages.ask("/livez")).status == 200
        assert pages.logged.getvalue() == ""

    visit(scene)
    assert caplog.records == []


def test_a_page_that_fails_is_a_500_and_a_line_in_our_own_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        message = "the cupboard is bare"
        raise LookupError(message)

    async def scene(pages: Pages) -> None:
        answer = await pages.ask("/metrics")
        assert answer.status == 500
        assert "cupboard" not in answer.body
        assert (await pages.ask("/livez")).status == 200
        assert "http.failed" in pages.logged.getvalue()
        assert "the cupboard is bare" in pages.logged.getvalue()

    metrics = Metrics("1.2.3")
    monkeypatch.setattr(metrics, "exposition", broken)
    visit(scene, metrics=metrics)
    assert capfd.readouterr().err == ""


def test_a_visitor_who_is_still_there_at_the_end_is_no_line_in_any_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is told what has happened, and that it is worth another try."""
    asked, answered = Event(), Event()

    def slow(*_: object) -> MetricsPage:
        asked.set()
        answered.wait()
        return MetricsPage(b"", TEXT)

    async def play() -> None:
        metrics = Metrics("1.2.3")
        monkeypatch.setattr(metrics, "exposition", slow)
        try:
            async with serving(metrics=metrics) as pages:
                visitor = asyncio.create_task(pages.say(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                await asyncio.to_thread(asked.wait)
            assert pages.logged.getvalue() == ""
        finally:
            answered.set()
        told = Answer.of(await visitor)
        assert (told.status, told.body) == (503, "the reaper is stopping: try again when it is back\n")

    asyncio.run(play())
    assert caplog.messages == []


def test_a_port_that_is_taken_is_an_oserror_in_words() -> None:
    with listen(LOOPBACK, 0) as taken, pytest.raises(OSError, match="already in use"):
        listen(LOOPBACK, taken.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_where_it_is_told_and_nowhere_else(host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this host speaks no IPv6")
    with listen(host, 0) as listening:
        assert listening.getsockname()[0] == host
