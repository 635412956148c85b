"""Every would-be termination of a backtest, one a line, named as the record names its fields."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from reaper.policy.spans import isoformat
from reaper.policy.stretch import Stretch


class Acts:
    """Writes them as they come."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    def write(self, server: str, policies: str, stretch: Stretch) -> None:
        """Those on the way from one reading to the next."""
        if self._file is None:
            return
        for at, reap, again in stretch.taken:
            if again:
                continue
            session = reap.session
            line = {
                "time": isoformat(at),
                "server": server,
                "policies": policies,
                "policy": reap.policy.name,
                "mode": reap.mode.value,
                "action": reap.action.value,
                "pid": session.id.pid,
                "backend_start": isoformat(session.id.backend_start),
                **session.identity._asdict(),
                "state": session.state,
                "state_change": isoformat(session.state_change),
                "reason": reap.reason,
            }
            self._file.write(json.dumps(line) + "\n")


@contextmanager
def written_to(path: Path | None) -> Iterator[Acts]:
    """A file for them, or none; raises OSError."""
    if path is None:
        yield Acts(None)
        return
    with path.open("w", encoding="ascii") as file:
        yield Acts(file)
