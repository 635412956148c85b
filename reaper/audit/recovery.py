"""After a crash: intents of earlier runs that have no outcome get the outcome `unknown`."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

from reaper.audit.events import COUNTERS, INTENT, Event
from reaper.audit.ledger import Ledger
from reaper.audit.reader import BadLine, open_intents, read_events, rotated_copies
from reaper.audit.sinks import AuditLogFailed

ENDED: Final = "an earlier run of the reaper ended between intent and outcome"
_MOST_BYTES: Final = 256 * 1024 * 1024
"""After this size no older copy is read; the newest copy always is."""


def close_open_intents(path: Path, ledger: Ledger) -> int:
    """Log `unknown` durably for the open intents of earlier runs, and return how many there were."""
    try:
        waiting = open_intents(_events_back_to_a_start(path))
    except OSError as error:
        why = f"open intents cannot be looked for: {error.strerror or error}"
        raise AuditLogFailed(where=str(path), why=why) from error
    earlier = [event for event in waiting if event.text("run") != ledger.run]
    if earlier:
        ledger.log_unknown_outcomes(earlier, ENDED)
    return len(earlier)


def _events_back_to_a_start(path: Path) -> Iterator[Event | BadLine]:
    """The events of the file, then of each copy from the newest on, until nothing older can be open."""
    started, worked = set[str](), set[str]()
    with ExitStack() as stack:
        sources = list[Path | BinaryIO]()
        # Opened before the copies are listed, because it may be rotated in between. Then it is read twice,
        # which changes nothing: an outcome closes its intent again.
        with suppress(FileNotFoundError):
            sources.append(stack.enter_context(path.open("rb")))
        for source in [*sources, *_newest(rotated_copies(path))]:
            # A run that started here and went to work has closed everything older before that.
            if started & worked:
                return
            with suppress(FileNotFoundError):
                for event in read_events(source):
                    if isinstance(event, Event) and (run := event.text("run")):
                        started.update({run} if event.fields.get("seq") == 1 else ())
                        worked.update({run} if event.name in {INTENT, COUNTERS} else ())
                    yield event


def _newest(copies: list[Path]) -> Iterator[Path]:
    """The copies, the newest first, within the limit."""
    size = 0
    for copy in reversed(copies):
        if size > _MOST_BYTES:
            return
        with suppress(FileNotFoundError):
            size += copy.stat().st_size
            yield copy
