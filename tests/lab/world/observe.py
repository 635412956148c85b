"""What is seen of a process from outside: its CPU time, its memory, its HTTP port."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import Signals
from typing import Final, NamedTuple

from reaper.demo.server import free_ports

_MIB: Final = 1024.0
_NANOSECONDS: Final = 1e9


class ProcessMemory(NamedTuple):
    """In MiB: resident memory, and the same with shared pages counted in part."""

    rss: float
    pss: float


def cpu_seconds(pid: int) -> float:
    """The CPU time of all its threads, user and system.

    From schedstat, because the ticks of `stat` are as long as ten cycles. Ended threads are missing.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / _NANOSECONDS


def cpu_seconds_of_children(pid: int) -> float:
    """The CPU time of all its children that have ended, in ticks: only for many of them together."""
    *_, user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> ProcessMemory:
    rss = _kib(Path(f"/proc/{pid}/status"), "VmRSS:")
    return ProcessMemory(rss=rss / _MIB, pss=_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / _MIB)


def free_mib() -> float:
    """The memory that this machine can still give."""
    return _kib(Path("/proc/meminfo"), "MemAvailable:") / _MIB


def signal(pid: int, number: Signals) -> None:
    """Send a signal to a process, if it exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _kib(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


_TIMEOUT: Final = 10.0
_OK: Final = 200
_COUNT: Final = "reaper_cycle_seconds_count"


class Response(NamedTuple):
    """One response; seconds from the connection to its last byte."""

    status: int
    text: str
    seconds: float


class HttpPort:
    """A free port, and requests to the reaper that listens on it."""

    def __init__(self, running: Callable[[], bool] = lambda: True, *, at: str = "") -> None:
        self.at = at or f"127.0.0.1:{next(free_ports())}"
        self.running = running

    def get(self, path: str) -> Response:
        """Send a GET request; status 0 if there is no answer."""
        began = time.monotonic()
        connection = HTTPConnection(self.at, timeout=_TIMEOUT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Response(answer.status, answer.read().decode(), time.monotonic() - began)
        except (OSError, HTTPException) as error:
            return Response(0, str(error), time.monotonic() - began)
        finally:
            connection.close()

    def wait(self, path: str, *, within: float = 120.0, every: float = 0.1) -> float:
        """Wait until this path answers 200; return the seconds that it took."""
        began = time.monotonic()
        while self.get(path).status != _OK:
            waited = time.monotonic() - began
            assert self.running(), f"the reaper ended before {path} answered 200"
            assert waited < within, f"{path} does not answer 200 after {waited:.0f} s"
            time.sleep(every)
        return time.monotonic() - began

    def delays(self, *, seconds: float, every: float = 0.02) -> Iterator[float]:
        """Response times of /livez, which waits for the event loop that runs the cycles."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield self.get("/livez").seconds
            time.sleep(every)

    def cycles(self) -> int:
        """The number of successful cycles, over all servers."""
        lines = self.get("/metrics").text.splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(_COUNT))
