"""Any request ends with at most one complete answer."""

import asyncio
import atexit
from contextlib import AsyncExitStack
from typing import Final

from tests.unit.telemetry.pages import Pages, serving

from .inputs import Target

_HTTP_REQUESTS: Final = (
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n",
    b"HEAD /livez HTTP/1.0\r\n\r\n",
    b"POST /readyz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /%00/../livez?a=b#c HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"GET http://a/metrics HTTP/1.1\r\nHost: [::]\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
)
_HTTP_REQUESTS_WORDS: Final = (
    *(
        word + b"\r\n"
        for word in b"Host:localhost Content-Length:5 Expect:100-continue Upgrade:h2c 0 hello".split()
    ),
    *b"GET HEAD POST /metrics /livez /readyz HTTP/1.1 HTTP/1.0 Connection: Accept: chunked".split(),
    *(b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"application/openmetrics-text"),
)
_STATUSES: Final = {b"200", b"400", b"404", b"405", b"421", b"503"}
_PATIENCE: Final = 20.0


class _OpenPages:
    """Pages that stay open from one check to the next, for opening them takes a hundred times as long."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._pages: Pages | None = None

    def say(self, data: bytes) -> bytes:
        """Send this, and listen to the end."""
        return self._runner.run(self._say(data))

    async def _say(self, data: bytes) -> bytes:
        if self._pages is None:
            self._pages = await self._open.enter_async_context(serving())
            atexit.register(self.close)
        async with asyncio.timeout(_PATIENCE):
            answer = await _said(self._pages, data)
        assert not self._pages.logged.getvalue(), self._pages.logged.getvalue()
        return answer

    def close(self) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()


_SERVER: Final = _OpenPages()


def _check_http_requests(data: bytes) -> None:
    answer = _SERVER.say(data)
    if answer:
        head, _, _ = answer.partition(b"\r\n\r\n")
        assert head.split(b" ")[1] in _STATUSES, head
        assert answer.count(b"HTTP/1.1 ") == 1


async def _said(pages: Pages, data: bytes) -> bytes:
    reader, writer = await pages.come()
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


TARGETS: Final = (Target("http_requests", _check_http_requests, _HTTP_REQUESTS, _HTTP_REQUESTS_WORDS),)
