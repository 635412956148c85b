"""Probes and scrapers get their answers, and no client can keep them from it."""

import asyncio
import socket
from threading import Event

import pytest
from starlette.applications import Starlette

from reaper.telemetry.http.routes import Health
from reaper.telemetry.http.server import MAX_CONNECTIONS, check_host, listen
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.exposition import TEXT, MetricsPage

from .pages import AT_ONCE, Answer, get, serving

REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /livez HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
RUBBISH = (b"\0\0\0\r\n\r\n", b"zzz\r\n", REQUEST[:-2] + b"\0: \0\r\n\r\n")
pytestmark = pytest.mark.anyio


def test_a_probe_answers_200_or_503_with_reasons_that_are_safe_to_print() -> None:
    reasons = {"ok": "unreachable", "orders": "denied: \x1b[2J", "stock": "\ud800"}
    live, ready = get("/livez", "/readyz", readyz=lambda: Health(good=False, reasons=reasons))
    assert (live.status, live.content) == (200, {"ok": True, "reasons": {}})
    shown = {"ok": "unreachable", "orders": "denied: \\x1b[2J", "stock": "\\ud800"}
    assert (ready.status, ready.content) == (503, {"ok": False, "reasons": shown})


async def test_head_answers_as_get_without_a_body() -> None:
    async with serving() as pages:
        for path in ("/metrics", "/livez", "/readyz"):
            got, headed = await pages.get(path), await pages.get(path, method="HEAD")
            assert (headed.status, headed.headers, headed.body) == (got.status, got.headers, "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MAKE"])
def test_only_get_and_head_are_allowed(method: str) -> None:
    for answer in get("/metrics", "/livez", "/readyz", method=method):
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_there_are_no_other_pages_and_no_redirects() -> None:
    others = ("/", "/metrics/", "//metrics", "/metrics/x", "/../etc/passwd", "/docs", "/openapi.json", "/%00")
    for answer in get(*others):
        assert answer.status == 404
        assert "location" not in answer.headers


def test_every_answer_forbids_browsers_to_run_load_or_keep_anything() -> None:
    for answer in get("/metrics", "/livez", "/nowhere"):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["connection"] == "close"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


async def test_a_scraper_gets_the_format_that_it_accepts() -> None:
    async with serving() as pages:
        old = await pages.get("/metrics", Accept="text/plain;version=0.0.4")
        new = await pages.get(
            "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        )
        assert old.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert new.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert new.body.endswith("# EOF\n")
        assert "# EOF" not in old.body
        assert 'pg_reaper_build_info{version="1.2.3"} 1.0' in old.body


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GE", id="half a word"),
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: he", id="half a request"),
        pytest.param(POST + b"Content-Length: 9\r\n", id="no body yet"),
    ],
)
async def test_a_client_that_never_finishes_its_request_is_disconnected(sent: bytes) -> None:
    async with serving(seconds=AT_ONCE) as pages:
        reader, writer = await pages.connect(sent)
        assert await until_the_end(reader) == b""
        writer.close()


async def test_a_client_that_hardly_reads_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    page = MetricsPage(b"x" * 30_000_000, TEXT)

    metrics = Metrics("1.2.3")
    monkeypatch.setattr(metrics, "exposition", lambda _: page)
    async with serving(seconds=AT_ONCE, metrics=metrics) as pages:
        reader, writer = await pages.connect(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(await until_the_end(reader, sip=100)) < len(page.body)
        writer.close()


async def until_the_end(reader: asyncio.StreamReader, *, sip: int = 1_000) -> bytes:
    """All that arrives before the connection ends in one way or another."""
    raw = bytearray()
    try:
        while piece := await reader.read(sip):
            raw += piece
    except ConnectionResetError:
        pass
    return bytes(raw)


async def test_the_answer_does_not_wait_for_a_body() -> None:
    async with serving() as pages:
        answer = Answer.of(await pages.send(POST + b"Content-Length: 1000000\r\n\r\nslow"))
        assert answer.status == 405


async def test_silent_clients_do_not_keep_a_probe_out_and_the_oldest_one_is_disconnected() -> None:
    async with serving() as pages:
        silent = [await pages.connect() for _ in range(3 * MAX_CONNECTIONS)]
        assert (await pages.get("/livez")).status == 200
        oldest, _ = silent[0]
        assert await until_the_end(oldest) == b""
        for _, writer in silent:
            writer.close()


async def test_a_connection_has_one_answer_however_many_requests_it_sends() -> None:
    async with serving() as pages:
        assert (await pages.send(REQUEST * 5)).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 90, id="TLS"),
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET /livez HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET /live z HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a space"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", id="beyond ASCII"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", id="no length"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, id="an endless header"),
        pytest.param(b"GET /" + b"a" * 100_000, id="an endless path"),
        *(begun + rubbish for begun in (REQUEST, CHUNKED) for rubbish in RUBBISH),
    ],
)
async def test_a_bad_request_or_rubbish_after_a_request_is_refused_without_a_line_in_the_log(
    sent: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving() as pages:
        reader, writer = await pages.connect(sent)
        # A client that is still sending may be disconnected before it reads the answer.
        raw = await until_the_end(reader)
        refused = {b"HTTP/1.1 400", b"HTTP/1.1 431", b""}
        assert raw[:12] in refused or sent.startswith((REQUEST, CHUNKED))
        writer.close()
        assert (await pages.get("/livez")).status == 200
        assert pages.logged.getvalue() == ""
    assert caplog.records == []
    assert capfd.readouterr().err == ""


async def test_a_page_that_fails_is_a_500_and_a_line_in_our_own_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        message = "the cupboard is bare"
        raise LookupError(message)

    metrics = Metrics("1.2.3")
    monkeypatch.setattr(metrics, "exposition", broken)
    async with serving(metrics=metrics) as pages:
        answer = await pages.get("/metrics")
        assert answer.status == 500
        assert "cupboard" not in answer.body
        assert (await pages.get("/livez")).status == 200
        assert "http.failed" in pages.logged.getvalue()
        assert "the cupboard is bare" in pages.logged.getvalue()
    assert capfd.readouterr().err == ""


async def test_a_request_that_is_open_at_shutdown_gets_503_and_no_line_in_any_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    requested, released = Event(), Event()

    def slow(*_: object) -> MetricsPage:
        requested.set()
        released.wait()
        return MetricsPage(b"", TEXT)

    metrics = Metrics("1.2.3")
    monkeypatch.setattr(metrics, "exposition", slow)
    try:
        async with serving(metrics=metrics) as pages:
            client = asyncio.create_task(pages.get("/metrics"))
            await asyncio.to_thread(requested.wait)
        assert pages.logged.getvalue() == ""
    finally:
        released.set()
    answer = await client
    assert (answer.status, answer.body) == (503, "the reaper is stopping: try again when it is back\n")
    assert caplog.messages == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_only_at_the_given_address_and_a_port_in_use_is_an_oserror(host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    with listen(host, 0) as listener:
        assert listener.getsockname()[0] == host
        with pytest.raises(OSError, match="already in use"):
            listen(host, listener.getsockname()[1])


async def with_hosts(*hosts: str, names: tuple[str, ...] = ()) -> Answer:
    """The answer to a request with these Host headers."""
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    version = "1.1" if hosts else "1.0"
    async with serving(names=names) as pages:
        return Answer.of(await pages.send(f"GET /livez HTTP/{version}\r\n{lines}\r\n".encode()))


async def test_a_loopback_port_accepts_addresses_localhost_and_allowed_names() -> None:
    accepted = ("localhost", "localhost:9432", "LocalHost.:9432", "127.0.0.1:9432", "127.0.0.1", "[::1]:9432")
    for host in (*accepted, "[::1]", "192.0.2.7:80", "db-1.internal:9432", "DB-1.Internal."):
        assert (await with_hosts(host, names=("db-1.internal",))).status == 200, host


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9432", "localhost.evil.example", "127.0.0.1.evil.example:9432"),
        *("localhost:80:9432", "evil.example:localhost", "[evil]", ""),
    ],
)
async def test_a_name_that_a_web_page_could_make_lead_here_is_refused_in_words(host: str) -> None:
    answer = await with_hosts(host)
    assert answer.status == 421
    assert "--listen-name NAME" in answer.body
    assert "x-content-type-options" in answer.headers


async def test_a_request_without_a_host_is_not_from_a_browser_and_of_two_hosts_none_hides_the_other() -> None:
    assert (await with_hosts()).status == 200
    assert (await with_hosts("localhost", "evil.example")).status in {400, 421}


def test_a_port_that_is_open_to_other_hosts_accepts_every_name() -> None:
    pages = Starlette()
    assert [check_host(pages, at=at) is pages for at in ("127.0.0.1", "::1")] == [False, False]
    assert [check_host(pages, at=at) is pages for at in ("::", "192.0.2.7")] == [True, True]
