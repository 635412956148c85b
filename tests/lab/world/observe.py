"""What can be observed of a process from outside: the files that it writes, its CPU time, its memory."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from signal import Signals
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

LONG: Final = 60.0
_POLL: Final = 0.01
_MIB: Final = 1024.0
_NANOSECONDS: Final = 1e9


async def wait_until(condition: Callable[[], T], *, within: float = LONG) -> T:
    """Return the first true result of a condition; raise TimeoutError if there is none in time."""
    deadline = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > deadline:
            message = f"still {result!r} after {within:g} s"
            raise TimeoutError(message)
        await asyncio.sleep(_POLL)
    return result


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine beside the block and cancel it at the end; fail if it ended by itself."""
    task = asyncio.create_task(work)
    try:
        yield task
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class GrowingFile:
    """A file that is read line by line; each complete line is returned once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def new_lines(self) -> list[bytes]:
        """Return the complete lines since the last call; none while the file is missing."""
        try:
            if self.path.stat().st_size <= self._read:
                return []
        except FileNotFoundError:
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            chunk = file.read()
        complete = chunk[: chunk.rfind(b"\n") + 1]
        self._read += len(complete)
        return complete.splitlines()


class LineCounter:
    """Counts the complete JSON lines of a file that contain some text."""

    def __init__(self, path: Path, text: bytes) -> None:
        self._file = GrowingFile(path)
        self._text = text
        self._count = 0

    def count(self) -> int:
        """Return the count so far; a torn line does not count, even if another line follows it."""
        lines = self._file.new_lines()
        self._count += sum(self._text in line and line.endswith(b"}") for line in lines)
        return self._count


class LogLine(NamedTuple):
    """One event of a reaper's log."""

    at: float
    """By the clock of the reaper's host."""
    name: str
    fields: Mapping[str, Any]


class ReaperLog:
    """The log of a reaper, which may still be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GrowingFile(path)
        self._events: list[LogLine] = []

    @property
    def events(self) -> list[LogLine]:
        for line in self._file.new_lines():
            if line.startswith(b"{"):
                fields = json.loads(line)
                at = datetime.fromisoformat(fields["time"]).timestamp()
                self._events.append(LogLine(at, fields["event"], fields))
        return self._events

    def named(self, *names: str, since: float = 0.0) -> list[LogLine]:
        """The events with one of these names since then."""
        return [event for event in self.events if event.name in names and since <= event.at]


class ProcessMemory(NamedTuple):
    """In MiB: resident memory, and the same with shared pages counted in part."""

    rss: float
    pss: float


def cpu_seconds(pid: int) -> float:
    """The CPU time of all threads of a process, user and system.

    From schedstat, because one tick of `stat` is as long as ten cycles. Ended threads are missing.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / _NANOSECONDS


def memory(pid: int) -> ProcessMemory:
    """The memory of a process now."""
    rss = _kib(Path(f"/proc/{pid}/status"), "VmRSS:")
    return ProcessMemory(rss=rss / _MIB, pss=_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / _MIB)


def free_mib() -> float:
    """The memory that is available on this machine."""
    return _kib(Path("/proc/meminfo"), "MemAvailable:") / _MIB


def signal(pid: int, number: Signals) -> None:
    """Send a signal to a process, if it exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _kib(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
