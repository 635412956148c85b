"""Files that grow while they are read, and waiting for what is in them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

LONG: Final = 60.0
_POLL: Final = 0.01


async def wait_until(condition: Callable[[], T], *, within: float = LONG) -> T:
    """The first true answer of a condition; a TimeoutError if there is none within these seconds."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            message = f"still {answer!r} after {within:g} s"
            raise TimeoutError(message)
        await asyncio.sleep(_POLL)
    return answer


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run this beside the block, and cancel it at the end; fail if it has ended by itself."""
    task = asyncio.create_task(work)
    try:
        yield task
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


_PATIENCE: Final = 90.0
_TAIL: Final = 2_000


class GrowingFile:
    """A file that is read line by line; each complete line is returned once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def new_lines(self) -> list[bytes]:
        """The complete lines that were added since the last call; none while the file is missing."""
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

    def __init__(self, path: Path, text: bytes, *, ending: bytes = b"}") -> None:
        self._file = GrowingFile(path)
        self._text = text
        self._ending = ending
        self._count = 0

    def count(self) -> int:
        """How many there are by now; a torn line does not count, even when another one follows it."""
        lines = self._file.new_lines()
        self._count += sum(self._text in line and line.endswith(self._ending) for line in lines)
        return self._count


class LogEvent(NamedTuple):
    """One line of a reaper's log."""

    at: float
    """By the clock of the reaper's host."""
    name: str
    fields: Mapping[str, Any]


class ReaperLog:
    """The log of a reaper, which may still be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GrowingFile(path)
        self._events: list[LogEvent] = []

    @property
    def events(self) -> list[LogEvent]:
        self._events += _parsed(self._file.new_lines())
        return self._events

    def named(self, *names: str, since: float = 0.0, until: float = float("inf")) -> list[LogEvent]:
        """The events with these names in this time."""
        return [event for event in self.events if event.name in names and since <= event.at < until]

    def wait(
        self,
        *names: str,
        since: float = 0.0,
        within: float = _PATIENCE,
        running: Callable[[], bool] = lambda: True,
    ) -> LogEvent:
        """The first event with one of these names since then; an AssertionError if it does not come."""
        deadline = time.monotonic() + within
        while not (found := self.named(*names, since=since)):
            going_on = running() and time.monotonic() < deadline
            assert going_on, f"no {' or '.join(names)}: {self.path.read_text('utf-8')[-_TAIL:]}"
            time.sleep(_POLL)
        return found[0]


def _parsed(lines: list[bytes]) -> Iterator[LogEvent]:
    for line in lines:
        if line.startswith(b"{"):
            fields = json.loads(line)
            yield LogEvent(datetime.fromisoformat(fields["time"]).timestamp(), fields["event"], fields)
