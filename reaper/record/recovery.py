"""What an earlier life of the reaper left open."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from reaper.record.events import Event
from reaper.record.ledger import Ledger
from reaper.record.reader import Torn, open_intents, read_events
from reaper.record.rotation import rotated_copies
from reaper.record.writer import RecordFailed

ENDED: Final = "an earlier life of the reaper ended between intent and outcome"


def settle_open_intents(path: Path, ledger: Ledger) -> int:
    """Settle the open intents of earlier lives as unknown, durably, and say how many there were.

    Looks at the file and at the one that was rotated last. Should another reaper that writes the same file be
    alive, its own outcome follows, and an outcome that is known counts more than this one.
    """
    earlier = [event for event in open_intents(_both(path)) if event.text("run") != ledger.run]
    if earlier:
        ledger.settle_earlier(earlier, ENDED)
    return len(earlier)


def _both(path: Path) -> Iterator[Event | Torn]:
    looked_at = path
    try:
        for looked_at in (*rotated_copies(path)[-1:], path):
            with suppress(FileNotFoundError):
                yield from read_events(looked_at)
    except OSError as error:
        why = f"open intents cannot be looked for: {error.strerror or error}"
        raise RecordFailed(where=str(looked_at), why=why) from error
