"""The log of a reaper while it is being written, each line read once."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

_POLL: Final = 0.02
_PATIENCE: Final = 90.0
_TAIL: Final = 2_000


class Event(NamedTuple):
    """One line."""

    at: float
    """By the clock of this host."""
    name: str
    fields: Mapping[str, Any]


class Journal:
    """What a reaper has logged so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        """Every event, the first one first."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            chunk = file.read()
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._read += len(whole)
        self._events += _parsed(whole)
        return self._events

    def named(self, *names: str, since: float = 0.0, until: float = float("inf")) -> list[Event]:
        """The events of these names in this time."""
        return [event for event in self.events if event.name in names and since <= event.at < until]

    def wait(
        self,
        *names: str,
        since: float = 0.0,
        within: float = _PATIENCE,
        running: Callable[[], bool] = lambda: True,
    ) -> Event:
        """The first event of these names from that moment on; an AssertionError when it does not come."""
        deadline = time.monotonic() + within
        while not (found := self.named(*names, since=since)):
            still = running() and time.monotonic() < deadline
            assert still, f"no {' or '.join(names)}: {self._tail}"
            time.sleep(_POLL)
        return found[0]

    @property
    def _tail(self) -> str:
        return self._path.read_text(encoding="utf-8")[-_TAIL:]


def _parsed(lines: bytes) -> Iterator[Event]:
    for line in lines.splitlines():
        if line.startswith(b"{"):
            fields = json.loads(line)
            yield Event(datetime.fromisoformat(fields["time"]).timestamp(), fields["event"], fields)
