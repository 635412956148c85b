"""Follows a record line by line, and finds every one that is not as it was written.

Holds a bounded number of lines in memory, whatever the length of the record.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from reaper.record.chain import Chain
from reaper.record.damage import Damage, Kind, Place
from reaper.record.diagnosis import Loose, Seen, diagnosis
from reaper.record.events import A_STREAM, AT_THE_TOP, INTENT, OPENED, OUTCOME, TORN, TRUNCATED
from reaper.record.reader import looks_torn
from reaper.record.walk import Damaged, Line, Readable, walk

_REMEMBERED: Final = 1_000
"""So many lines back it is known where a digest belongs."""
_PATIENCE: Final = 3
"""So many lines may stand between a torn line and the one that tells of it."""
_MOST_STREAMS: Final = 1_000
_MOST_OPEN: Final = 10_000
"""So many intents without an outcome are known by name."""
_UNCHAINED: Final = "somebody inserted it, or a reaper wrote it that knew no chain yet"
_ANOTHER_FILE: Final = "nor is any other line here: it is another file"
_STILL_TORN: Final = "the next life of the reaper will tell of it"
_LONGEST_FRAGMENT: Final = 1024 * 1024


class Verification:
    """One record: a file with its rotated copies in their order, or a stream."""

    def __init__(self, *, anchors: set[str]) -> None:
        self.lines = 0
        """How many lines are in the chain."""
        self.before = 0
        """How many lines stand before it began."""
        self.foreign = 0
        """How many lines of others stand between those of a stream."""
        self.follows: str | None = None
        """The digest of a line before the first one, which is not here."""
        self.last: Seen | None = None
        """The last line of the chain: its head."""
        self.open_intents: dict[str, Place] = {}
        self._anchors = anchors
        """Heads that were noted elsewhere, and have not been met yet."""
        self._chain = Chain()
        self._before: Seen | None = None
        self._recent: deque[Seen] = deque(maxlen=_REMEMBERED)
        self._streams: dict[str, tuple[Chain, Seen]] = {}
        self._loose: Loose | None = None
        self._fragment = b""
        self._untold: list[tuple[int, Damage]] = []

    def read(self, name: str, stream: Readable) -> Iterator[Damage]:
        """Follow the next file of the record."""
        number = 0
        try:
            for line in walk(stream, self._chain):
                number = line.number
                if line.fields is None:
                    self._note_loose(Place(name, number), line)
                else:
                    seen = Seen.of(Place(name, number), line.data, line.fields)
                    yield from self._follow(seen)
                    self._pass(seen, line)
        except Damaged as damaged:
            yield Damage(kind=Kind.UNREADABLE, place=Place(name, number + 1), sentence=str(damaged))

    def finish(self) -> Iterator[Damage]:
        """What is left to say when nothing more comes."""
        yield from (damage for _, damage in self._untold)
        if self._loose and not self._streams:
            yield self._loose.damage(self._left_over(self._loose))
        elif self._loose:
            self.foreign += self._loose.count

    def _left_over(self, loose: Loose) -> str:
        if loose.looks_torn:
            return _STILL_TORN
        return "" if self.lines or self.before else _ANOTHER_FILE

    def _follow(self, seen: Seen) -> Iterator[Damage]:
        if seen.event == OPENED and seen.detail == A_STREAM and seen.linked and seen.prev is None:
            yield from self._begin_stream(seen)
        elif seen.run in self._streams:
            yield from self._follow_stream(seen)
        else:
            yield from self._follow_file(seen)

    def _follow_file(self, seen: Seen) -> Iterator[Damage]:
        loose, self._loose = self._loose, None
        if not seen.linked and self.last is None:
            self.before += 1 + (loose.count if loose else 0)
        elif not seen.linked:
            yield from [loose.damage()] if loose else []
            sentence = f"it carries no digest: {_UNCHAINED}"
            yield Damage(kind=Kind.FOREIGN, place=seen.place, sentence=sentence)
        elif seen.prev == self._chain.head:
            if loose and self.last:
                self._untold.append((self.lines, loose.damage()))
            elif loose:
                self.before += loose.count
        elif self._before is None:
            yield from self._begin_in_the_middle(seen, loose)
        else:
            found, recent = self._chain.head, self._recent
            yield diagnosis(seen, last=self._before, recent=recent, loose=loose, found=found)
        yield from self._told(seen)

    def _begin_in_the_middle(self, seen: Seen, loose: Loose | None) -> Iterator[Damage]:
        """The first line follows one that is not here: fine when that went away with a rotated copy."""
        if loose:
            self._untold.append((self.lines, loose.damage()))
        if seen.event == TRUNCATED or (seen.event == OPENED and (seen.detail or "").startswith(AT_THE_TOP)):
            self.follows = seen.prev
            self._anchors.discard(seen.prev or "")
        else:
            why = "a file of the record begins with record.opened"
            sentence = f"lines before this one are missing: {why}"
            yield Damage(kind=Kind.MISSING, place=seen.place, sentence=sentence, expected=seen.prev)

    def _told(self, seen: Seen) -> Iterator[Damage]:
        """The torn lines that this one tells of, and those that nobody has told of in time."""
        untold, self._untold = self._untold, []
        for since, damage in untold:
            if seen.event == TORN and damage.kind is Kind.TORN:
                yield damage.explained_by(seen.place, seen.detail)
            elif self.lines - since >= _PATIENCE:
                yield damage
            else:
                self._untold.append((since, damage))

    def _begin_stream(self, seen: Seen) -> Iterator[Damage]:
        loose, self._loose = self._loose, None
        self.foreign += loose.count if loose else 0
        if seen.run in self._streams:
            yield Damage(kind=Kind.REPEATED, place=seen.place, sentence="this life has already begun")

    def _follow_stream(self, seen: Seen) -> Iterator[Damage]:
        chain, last = self._streams[seen.run or ""]
        loose, self._loose = self._loose, None
        if seen.prev == chain.head:
            self.foreign += loose.count if loose else 0
            return
        if loose and seen.event == TORN:
            mended = chain.copy()
            mended.loose(self._fragment)
            if seen.prev == mended.head:
                yield loose.damage().explained_by(seen.place, seen.detail)
                return
        yield diagnosis(seen, last=last, recent=self._recent, loose=None, found=chain.head)

    def _pass(self, seen: Seen, line: Line) -> None:
        """Go on from this line, whatever was wrong with it."""
        self._chain.whole(line.data)
        if seen.run in self._streams or (seen.event == OPENED and seen.detail == A_STREAM):
            chain = Chain()
            chain.whole(line.data)
            self._streams[seen.run or ""] = chain, seen
            if len(self._streams) > _MOST_STREAMS:
                del self._streams[next(iter(self._streams))]
        self._before = seen
        self._recent.append(seen)
        self._anchors.discard(seen.digest)
        if seen.linked:
            self.lines += 1
            self.last = seen
        self._note_intent(seen, line.fields or {})

    def _note_loose(self, place: Place, line: Line) -> None:
        self._fragment = line.data if len(line.data) <= _LONGEST_FRAGMENT else b""
        torn = line.data != b"" and looks_torn(line.data)
        if self._loose is None:
            self._loose = Loose(first=place, why=line.why, looks_torn=torn)
        else:
            self._loose.count += 1
            self._loose.looks_torn = self._loose.looks_torn and torn

    def _note_intent(self, seen: Seen, fields: Mapping[str, object]) -> None:
        intent = fields.get("intent")
        if not isinstance(intent, str):
            return
        if seen.event == OUTCOME:
            self.open_intents.pop(intent, None)
        elif seen.event == INTENT and len(self.open_intents) < _MOST_OPEN:
            self.open_intents[intent] = seen.place
