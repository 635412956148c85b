"""What an earlier life of the reaper left open."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

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
        with ExitStack() as stack:
            # Opened before the copies are listed: it may become one of them while we look.
            file = _opened(path, stack)
            for looked_at in [copy for copy in rotated_copies(path) if not _is_same(copy, file)][-1:]:
                with suppress(FileNotFoundError):
                    yield from read_events(looked_at)
            looked_at = path
            if file:
                yield from read_events(file)
    except OSError as error:
        why = f"open intents cannot be looked for: {error.strerror or error}"
        raise RecordFailed(where=str(looked_at), why=why) from error


def _opened(path: Path, stack: ExitStack) -> BinaryIO | None:
    with suppress(FileNotFoundError):
        return stack.enter_context(path.open("rb"))
    return None


def _is_same(copy: Path, file: BinaryIO | None) -> bool:
    with suppress(FileNotFoundError):
        return file is not None and os.path.samestat(copy.stat(), os.fstat(file.fileno()))
    return False
