"""Follows a record line by line, and finds every one that is not as it was written.

Holds a bounded number of lines in memory, whatever the length of the record.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, Self

from reaper.audit.chain import Chain, Damaged, Line, Readable, walk
from reaper.audit.events import A_STREAM, AT_THE_TOP, INTENT, OPENED, OUTCOME, PREV, TORN, TRUNCATED
from reaper.audit.reader import looks_torn


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        """`audit.jsonl:17`."""
        return f"{self.file}:{self.line}"


class Kind(StrEnum):
    """What is wrong."""

    CHANGED = "changed"
    """A line is not what the next one holds on to."""
    MISSING = "missing"
    """Lines that the next one follows are not there."""
    INSERTED = "inserted"
    """Lines stand where nothing follows them."""
    REPEATED = "repeated"
    """A line stands there twice."""
    FOREIGN = "foreign"
    """A line is none of this record."""
    TORN = "torn"
    """A line ends too soon."""
    BROKEN_OFF = "broken off"
    """The chain ends, and another begins."""
    UNREADABLE = "unreadable"
    """A compressed file is damaged."""
    UNKNOWN_HEAD = "unknown head"
    """A head that was noted elsewhere is not in the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something that is not as it was written."""

    kind: Kind
    place: Place | None
    sentence: str
    expected: str | None = None
    """The digest that should stand there."""
    found: str | None = None
    """The one that does."""
    explained: str | None = None
    """What the record itself says about it; then it is what a crash leaves, and no more."""

    def explained_by(self, place: Place, detail: str | None) -> "Damage":
        """The same, told by a line of the record."""
        return replace(self, explained=f"{place} tells of it: {detail}")

    def __str__(self) -> str:
        """`audit.jsonl:17: changed: ...`."""
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.kind}: {self.sentence}" + (f" ({self.explained})" if self.explained else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What has to be known of a whole line."""

    place: Place
    digest: str
    event: str | None
    run: str | None
    seq: int | None
    time: str | None
    detail: str | None
    linked: bool
    """Whether it carries a digest at all."""
    prev: str | None

    @classmethod
    def of(cls, place: Place, data: bytes, fields: Mapping[str, object]) -> Self:
        """From the line as it stands there."""

        def text(name: str) -> str | None:
            value = fields.get(name)
            return value if isinstance(value, str) else None

        seq = fields.get("seq")
        return cls(
            place=place,
            digest=sha256(data).hexdigest(),
            event=text("event"),
            run=text("run"),
            seq=seq if isinstance(seq, int) else None,
            time=text("time"),
            detail=text("detail"),
            linked=PREV in fields,
            prev=text(PREV),
        )


@dataclass(slots=True, kw_only=True)
class Loose:
    """Lines one behind the other that are not whole."""

    first: Place
    why: str
    looks_torn: bool
    """Whether they may be the beginnings of lines of ours."""
    count: int = 1

    @property
    def what(self) -> str:
        """`it is not JSON, so probably torn`, or of how many lines that is true."""
        return self.why if self.count == 1 else f"{self.count} lines from here on: {self.why}"

    def damage(self, why: str = "") -> Damage:
        """These lines as something that should not be there."""
        kind = Kind.TORN if self.looks_torn else Kind.FOREIGN
        return Damage(kind=kind, place=self.first, sentence="; ".join(filter(None, (self.what, why))))


def diagnosis(
    line: Seen, *, last: Seen, recent: Iterable[Seen], loose: Loose | None, found: str | None
) -> Damage:
    """What happened between the last whole line and this one, which does not follow it."""
    known = {each.digest: each for each in recent}
    kind, place, sentence = _unlike(line, known) or _changed(line, last, loose)
    return Damage(kind=kind, place=place, sentence=sentence, expected=line.prev, found=found)


_Told = tuple[Kind, Place, str]


def _unlike(line: Seen, known: Mapping[str, Seen]) -> _Told | None:
    if twin := known.get(line.digest):
        return Kind.REPEATED, line.place, f"the same line stands at {twin.place}"
    if line.prev is None:
        why = f" ({line.detail})" if line.detail else ""
        return Kind.BROKEN_OFF, line.place, f"a new chain begins here, although lines stand before it{why}"
    if line.event == TRUNCATED:
        why = f"its writer found that somebody had shortened the file {line.detail}"
        return Kind.MISSING, line.place, f"lines before this one are missing: {why}"
    if before := known.get(line.prev):
        why = "what stands between them was inserted, or moved here"
        return Kind.INSERTED, line.place, f"this line follows {before.place}: {why}"
    return None


def _changed(line: Seen, last: Seen, loose: Loose | None) -> _Told:
    if loose:
        why = f"this is not what {line.place} follows, so it was changed, and not torn by a crash"
        return Kind.CHANGED, loose.first, f"{loose.what}; {why}"
    if line.run == last.run and line.seq is not None and last.seq is not None:
        gap = line.seq - last.seq - 1
        if gap == 0:
            return Kind.CHANGED, last.place, f"{line.place} follows this line as it was before it was changed"
        if gap > 0:
            lines = "1 line is" if gap == 1 else f"{gap} lines are"
            why = f"by their numbers {lines} missing between {last.place} and this one"
            return Kind.MISSING, line.place, why
    why = f"{last.place} was changed, or lines between them are missing"
    return Kind.MISSING, line.place, f"this line follows one that is not here: {why}"


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
