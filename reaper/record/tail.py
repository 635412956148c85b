"""Reads a record while it is written, rotated and compressed: every whole line once, in bounded pieces.

It is called in a thread: to unpack a volume as far as reading goes on takes a while.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from reaper.record.marks import Mark, Marks
from reaper.record.reader import LONGEST_LINE
from reaper.record.reading import Piece, Reading
from reaper.record.volumes import UNPACKING, Shelf, Volume, reason

_MISSING_SECONDS: Final = 60.0
"""A volume is gone when it was not seen for so long: in the middle of a rotation nothing is in its place."""


class Tail:
    """Follows one record."""

    def __init__(self, path: Path, marks: Marks, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shelf = Shelf(path)
        self._marks = marks.by_identity
        self._clock = clock
        self._queue = deque[Volume]()
        self._reading: Reading | None = None
        self._seen = dict.fromkeys(self._marks, clock())
        self._owed: dict[str, int] = {}
        self._troubles: list[str] = []
        self._missed = 0

    @property
    def waiting(self) -> int:
        """Bytes that were not read when this was last looked at; of packed volumes, as they are."""
        return sum(self._owed.values())

    def troubles(self) -> list[str]:
        """What was found wrong since this was last asked, in sentences."""
        found = [*self._shelf.troubles, *self._troubles]
        self._shelf.troubles, self._troubles = [], []
        return found

    def missed(self) -> int:
        """How many volumes have gone, since this was last asked, before they were read to the end."""
        missed, self._missed = self._missed, 0
        return missed

    def next(self) -> Piece | None:
        """The next piece, once the last one is kept; nothing when everything was read."""
        if piece := self._of_those_found():
            return piece
        self._queue.extend(self.look())
        return self._of_those_found()

    def keep(self, piece: Piece) -> None:
        """The lines of this piece have arrived where they go, and are not read again."""
        if piece.mark:
            self._marks[piece.identity] = piece.mark
            self._owed[piece.identity] = max(self._owed.get(piece.identity, 0) - piece.size, 0)

    def look(self) -> list[Volume]:
        """The volumes in which there is something that was not read yet, oldest first."""
        try:
            volumes = self._shelf.volumes()
        except OSError as error:
            self._troubles.append(f"the record's folder cannot be read: {reason(error)}")
            return []
        now = self._clock()
        self._owed = {}
        for volume in volumes:
            self._seen[volume.identity] = now
            mark = self._marks.setdefault(volume.identity, Mark())
            if mark.done != volume.signature:
                self._marks[volume.identity] = replace(mark, done=None)
                read = 0 if volume.packed else mark.offset
                self._owed[volume.identity] = max(volume.signature.size - read, 0)
        self._forget(now)
        return [volume for volume in volumes if volume.identity in self._owed]

    def close(self) -> None:
        """Let go of the volume that is being read."""
        reading, self._reading = self._reading, None
        if reading:
            reading.close()

    def _of_those_found(self) -> Piece | None:
        while self._reading or self._queue:
            self._reading = self._reading or self._begin(self._queue.popleft())
            if self._reading:
                if piece := self._piece(self._reading):
                    return piece
                self._done(self._reading.volume)
                self.close()
        return None

    def _forget(self, now: float) -> None:
        gone = [identity for identity, seen in self._seen.items() if now - seen > _MISSING_SECONDS]
        for identity in gone:
            if self._reading and identity == self._reading.volume.identity:
                continue  # removed, and still in our hands
            del self._seen[identity]
            self._missed += self._marks.pop(identity, Mark()).done is None

    def _begin(self, volume: Volume) -> Reading | None:
        try:
            return Reading(volume, self._marks.get(volume.identity, Mark()))
        except FileNotFoundError:
            return None  # rotated meanwhile: the next look finds it under its new name
        except (OSError, *UNPACKING) as error:
            self._give_up(volume, error)
            return None

    def _piece(self, reading: Reading) -> Piece | None:
        try:
            piece = reading.piece()
        except (OSError, *UNPACKING) as error:
            self._give_up(reading.volume, error)
            return None
        if piece and piece.passed_over:
            told = f"a line of more than {LONGEST_LINE} bytes is none of ours, and is passed over"
            self._troubles.append(f"{reading.volume.path}: {told}")
        return piece

    def _give_up(self, volume: Volume, error: BaseException) -> None:
        """Go on with the others; it is looked at again when it has changed."""
        self._troubles.append(f"{volume.path} cannot be read to its end: {reason(error)}")
        self._done(volume)

    def _done(self, volume: Volume) -> None:
        mark = self._marks.get(volume.identity, Mark())
        self._marks[volume.identity] = replace(mark, done=volume.signature)
        self._owed.pop(volume.identity, None)
