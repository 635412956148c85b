"""After a crash: intents of earlier runs that have no outcome get the outcome `unknown`."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

from reaper.audit.events import COUNTERS, INTENT, Event
from reaper.audit.ledger import Ledger
from reaper.audit.reader import BadLine, open_intents, read_events
from reaper.audit.rotation import rotated_copies
from reaper.audit.sinks import AuditLogFailed

ENDED: Final = "an earlier life of the reaper ended between intent and outcome"
_MOST_COPIES: Final = 10
_MOST_BYTES: Final = 256 * 1024 * 1024
"""Older copies are not read; the newest copy always is."""


def close_open_intents(path: Path, ledger: Ledger) -> int:
    """Log `unknown` durably for the open intents of earlier runs, and return how many there were."""
    earlier = [
        event for event in open_intents(_entries_back_to_a_start(path)) if event.text("run") != ledger.run
    ]
    if earlier:
        ledger.log_unknown_outcomes(earlier, ENDED)
    return len(earlier)


def _entries_back_to_a_start(path: Path) -> Iterator[Event | BadLine]:
    """The entries of the file, then of each copy from the newest on, until nothing older can be open."""
    current = path
    started, worked = set[str](), set[str]()

    def noted(events: Iterable[Event | BadLine]) -> Iterator[Event | BadLine]:
        for event in events:
            run = event.text("run") if isinstance(event, Event) else None
            if isinstance(event, Event) and run:
                started.update({run} if event.fields.get("seq") == 1 else ())
                worked.update({run} if event.name in {INTENT, COUNTERS} else ())
            yield event

    try:
        with ExitStack() as stack:
            # Opened before the copies are listed, because it may be rotated in between.
            file = _opened(path, stack)
            copies = [copy for copy in rotated_copies(path) if not _is_same(copy, file)]
            if file:
                yield from noted(read_events(file))
            for current in _newest(copies):
                # A run that started here and went to work has closed everything older before that.
                if started & worked:
                    return
                with suppress(FileNotFoundError):
                    yield from noted(read_events(current))
    except OSError as error:
        why = f"open intents cannot be looked for: {error.strerror or error}"
        raise AuditLogFailed(where=str(current), why=why) from error


def _newest(copies: list[Path]) -> Iterator[Path]:
    """The copies that are not empty, the newest first, within the limits."""
    number, size = 0, 0
    for copy in reversed(copies):
        with suppress(FileNotFoundError):
            length = copy.stat().st_size
            if length == 0:
                continue
            number, size = number + 1, size + length
            if number > 1 and (number > _MOST_COPIES or size > _MOST_BYTES):
                return
            yield copy


def _opened(path: Path, stack: ExitStack) -> BinaryIO | None:
    with suppress(FileNotFoundError):
        return stack.enter_context(path.open("rb"))
    return None


def _is_same(copy: Path, file: BinaryIO | None) -> bool:
    with suppress(FileNotFoundError):
        return file is not None and os.path.samestat(copy.stat(), os.fstat(file.fileno()))
    return False
