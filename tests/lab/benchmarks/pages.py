"""What a reaper's HTTP pages say, and how long they take to say it."""

import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

_TIMEOUT: Final = 10.0
_OK: Final = 200


class Answer(NamedTuple):
    """One page; seconds from the connection to the last byte."""

    status: int
    text: str
    seconds: float


class Pages:
    """The pages of one reaper on this host."""

    def __init__(self, port: int, *, running: Callable[[], bool]) -> None:
        self._port = port
        self._running = running

    def get(self, path: str) -> Answer:
        """Fetch one."""
        began = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return Answer(answer.status, text, time.monotonic() - began)

    def wait(self, path: str, *, within: float, every: float = 0.1) -> float:
        """How long it takes until this page is well."""
        began = time.monotonic()
        while not self._well(path):
            waited = time.monotonic() - began
            assert self._running(), f"the reaper ended before {path} was well"
            assert waited < within, f"{path} is not well after {waited:.0f} s"
            time.sleep(every)
        return time.monotonic() - began

    def delays(self, *, seconds: float, every: float = 0.02) -> Iterator[float]:
        """How long /livez takes, asked again and again: it waits for the loop that runs the cycles."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield self.get("/livez").seconds
            time.sleep(every)

    def cycles(self) -> int:
        """How many cycles have ended well, over all servers."""
        lines = self.get("/metrics").text.splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(_COUNT))

    def _well(self, path: str) -> bool:
        try:
            return self.get(path).status == _OK
        except (OSError, HTTPException):
            return False


_COUNT: Final = "reaper_cycle_seconds_count"
