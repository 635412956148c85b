"""What an earlier life of the reaper left open."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

from reaper.audit.events import COUNTERS, INTENT, Event
from reaper.audit.ledger import Ledger
from reaper.audit.reader import Torn, open_intents, read_events
from reaper.audit.rotation import rotated_copies
from reaper.audit.sinks import AuditLogFailed

ENDED: Final = "an earlier life of the reaper ended between intent and outcome"
_MOST_COPIES: Final = 10
_MOST_BYTES: Final = 256 * 1024 * 1024
"""So far back at the most, but always into the copy that was rotated last."""
_WORK: Final = frozenset({INTENT, COUNTERS})


def settle_open_intents(path: Path, ledger: Ledger) -> int:
    """Settle the open intents of earlier lives as unknown, durably, and say how many there were.

    Looks at the file and at rotated copies. Should another reaper that writes the same file be alive, its own
    outcome follows, and an outcome that is known counts more than this one.
    """
    earlier = [event for event in open_intents(_back_from(path)) if event.text("run") != ledger.run]
    if earlier:
        ledger.settle_earlier(earlier, ENDED)
    return len(earlier)


class _Lives:
    """Which lives have begun here and gone to work: before that each has settled what was open by then."""

    def __init__(self) -> None:
        self._begun = set[str]()
        self._worked = set[str]()

    def note(self, event: Event | Torn) -> None:
        """Remember what an event tells of the life that wrote it."""
        run = event.text("run") if isinstance(event, Event) else None
        if not isinstance(event, Event) or run is None:
            return
        if event.fields.get("seq") == 1:
            self._begun.add(run)
        if event.name in _WORK:
            self._worked.add(run)

    @property
    def have_settled(self) -> bool:
        """Whether nothing that is older than what was read can still be open."""
        return bool(self._begun & self._worked)


def _back_from(path: Path) -> Iterator[Event | Torn]:
    """The events of the file, and of copy after copy, the newest first, until nothing older can be open."""
    looked_at, lives = path, _Lives()

    def noted(events: Iterator[Event | Torn]) -> Iterator[Event | Torn]:
        for event in events:
            lives.note(event)
            yield event

    try:
        with ExitStack() as stack:
            # Opened before the copies are listed: it may become one of them while we look.
            file = _opened(path, stack)
            copies = [copy for copy in rotated_copies(path) if not _is_same(copy, file)]
            if file:
                yield from noted(read_events(file))
            for looked_at in _near(copies):
                if lives.have_settled:
                    return
                with suppress(FileNotFoundError):
                    yield from noted(read_events(looked_at))
    except OSError as error:
        why = f"open intents cannot be looked for: {error.strerror or error}"
        raise AuditLogFailed(where=str(looked_at), why=why) from error


def _near(copies: list[Path]) -> Iterator[Path]:
    """The copies that are not too far back, the newest first, and those that are empty not counted."""
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
