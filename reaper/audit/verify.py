"""Follows an audit log line by line, and finds every line that is not as it was written.

Only a bounded number of lines is kept in memory, however long the audit log is.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, Self

from reaper.audit.chain import Chain, DamagedGzip, LineSource, RawLine, iterate_lines
from reaper.audit.events import A_STREAM, AT_THE_TOP, INTENT, OPENED, OUTCOME, PREV, TORN, TRUNCATED
from reaper.audit.reader import looks_torn

_REMEMBERED: Final = 1_000
"""A digest is looked up among this number of previous lines."""
_TORN_WITHIN: Final = 3
"""At most this number of lines stands between a torn line and the `record.torn` that reports it."""
_MOST_STREAMS: Final = 1_000
_MOST_OPEN: Final = 10_000
_LONGEST_FRAGMENT: Final = 1024 * 1024
_UNCHAINED: Final = "it was inserted, or written by a reaper without a chain"
_ANOTHER_FILE: Final = "nor is any other line here: it is another file"
_STILL_TORN: Final = "the next run of the reaper will report it"


class Location(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        """`audit.jsonl:17`."""
        return f"{self.file}:{self.line}"


class ProblemKind(StrEnum):
    """What is wrong with a line."""

    CHANGED = "changed"
    """The next line carries another digest than that of this line."""
    MISSING = "missing"
    """Lines before this one are not there."""
    INSERTED = "inserted"
    """The line does not belong here."""
    REPEATED = "repeated"
    """The same line occurs twice."""
    FOREIGN = "foreign"
    """The line is no entry of this audit log."""
    TORN = "torn"
    """The line is incomplete."""
    BROKEN_OFF = "broken off"
    """A new chain begins in the middle."""
    UNREADABLE = "unreadable"
    """A compressed file is damaged."""
    UNKNOWN_HEAD = "unknown head"
    """A head that was noted elsewhere is not in the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it was written."""

    kind: ProblemKind
    place: Location | None
    sentence: str
    expected: str | None = None
    """The expected digest."""
    found: str | None = None
    """The digest that is there."""
    explained: str | None = None
    """What the audit log itself says about it; then it is what a crash leaves behind."""

    def __str__(self) -> str:
        """`audit.jsonl:17: changed: ...`."""
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.kind}: {self.sentence}" + (f" ({self.explained})" if self.explained else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainedLine:
    """What must be known of a whole entry."""

    place: Location
    digest: str
    event: str | None
    run: str | None
    seq: int | None
    time: str | None
    detail: str | None
    linked: bool
    """It carries a digest, or null where the chain begins."""
    prev: str | None

    @classmethod
    def parse(cls, place: Location, data: bytes, fields: Mapping[str, object]) -> Self:
        """Make one from a line and its fields."""

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
class _BadLines:
    """Consecutive lines that are no entries."""

    first: Location
    why: str
    looks_torn: bool
    """They may be the beginnings of entries."""
    count: int = 1

    @property
    def what(self) -> str:
        return self.why if self.count == 1 else f"{self.count} lines from here on: {self.why}"

    def problem(self, why: str = "") -> Problem:
        kind = ProblemKind.TORN if self.looks_torn else ProblemKind.FOREIGN
        return Problem(kind=kind, place=self.first, sentence="; ".join(filter(None, (self.what, why))))


def _explained_by(line: ChainedLine, problem: Problem) -> Problem:
    return replace(problem, explained=f"{line.place} reports it: {line.detail}")


def _cause(
    line: ChainedLine,
    *,
    last: ChainedLine,
    recent: Iterable[ChainedLine],
    bad: _BadLines | None,
    found: str | None,
) -> Problem:
    """What happened between the last entry and this one, which does not continue the chain."""
    known = {each.digest: each for each in recent}
    kind, place, sentence = _known_cause(line, known) or _change(line, last, bad)
    return Problem(kind=kind, place=place, sentence=sentence, expected=line.prev, found=found)


_Cause = tuple[ProblemKind, Location, str]


def _known_cause(line: ChainedLine, known: Mapping[str, ChainedLine]) -> _Cause | None:
    if twin := known.get(line.digest):
        return ProblemKind.REPEATED, line.place, f"the same line stands at {twin.place}"
    if line.prev is None:
        why = f" ({line.detail})" if line.detail else ""
        return (
            ProblemKind.BROKEN_OFF,
            line.place,
            f"a new chain begins here, although lines stand before it{why}",
        )
    if line.event == TRUNCATED:
        why = f"its writer found the file shortened {line.detail}"
        return ProblemKind.MISSING, line.place, f"lines before this one are missing: {why}"
    if before := known.get(line.prev):
        why = "what stands between them was inserted, or moved here"
        return ProblemKind.INSERTED, line.place, f"this line follows {before.place}: {why}"
    return None


def _change(line: ChainedLine, last: ChainedLine, bad: _BadLines | None) -> _Cause:
    if bad:
        why = f"this is not what {line.place} follows, so it was changed, and not torn by a crash"
        return ProblemKind.CHANGED, bad.first, f"{bad.what}; {why}"
    if line.run == last.run and line.seq is not None and last.seq is not None:
        gap = line.seq - last.seq - 1
        if gap == 0:
            why = f"{line.place} follows this line as it was before it was changed"
            return ProblemKind.CHANGED, last.place, why
        if gap > 0:
            lines = "1 line is" if gap == 1 else f"{gap} lines are"
            why = f"by their numbers {lines} missing between {last.place} and this one"
            return ProblemKind.MISSING, line.place, why
    why = f"{last.place} was changed, or lines between them are missing"
    return ProblemKind.MISSING, line.place, f"this line follows one that is not here: {why}"


class Verification:
    """Verifies one audit log: a file with its rotated copies in their order, or a stream."""

    def __init__(self, *, anchors: set[str]) -> None:
        self.lines = 0
        """The number of lines in the chain."""
        self.before = 0
        """The number of lines before the chain begins."""
        self.foreign = 0
        """The number of lines of other programs in a stream."""
        self.follows: str | None = None
        """The digest that the first line carries, of a line that is not here."""
        self.last: ChainedLine | None = None
        """The last line of the chain: its head."""
        self.open_intents: dict[str, Location] = {}
        self._anchors = anchors
        """Heads that were noted elsewhere, and are not found yet."""
        self._chain = Chain()
        self._before: ChainedLine | None = None
        self._recent: deque[ChainedLine] = deque(maxlen=_REMEMBERED)
        self._streams: dict[str, tuple[Chain, ChainedLine]] = {}
        self._bad: _BadLines | None = None
        self._fragment = b""
        self._unexplained: list[tuple[int, Problem]] = []

    def read(self, name: str, stream: LineSource) -> Iterator[Problem]:
        """Follow the next file of the audit log."""
        number = 0
        try:
            for raw in iterate_lines(stream, self._chain):
                number = raw.number
                if raw.fields is None:
                    self._note_bad(Location(name, number), raw)
                else:
                    line = ChainedLine.parse(Location(name, number), raw.data, raw.fields)
                    yield from self._follow(line)
                    self._accept(line, raw)
        except DamagedGzip as damaged:
            place = Location(name, number + 1)
            yield Problem(kind=ProblemKind.UNREADABLE, place=place, sentence=str(damaged))

    def finish(self) -> Iterator[Problem]:
        """The problems that are left at the end of the last file."""
        yield from (problem for _, problem in self._unexplained)
        if self._bad and not self._streams:
            known = self.lines or self.before
            why = _STILL_TORN if self._bad.looks_torn else "" if known else _ANOTHER_FILE
            yield self._bad.problem(why)
        elif self._bad:
            self.foreign += self._bad.count

    def _follow(self, line: ChainedLine) -> Iterator[Problem]:
        if _begins_stream(line):
            bad = self._take_bad()
            self.foreign += bad.count if bad else 0
            if line.run in self._streams:
                sentence = "this run has already begun"
                yield Problem(kind=ProblemKind.REPEATED, place=line.place, sentence=sentence)
        elif line.run in self._streams:
            yield from self._follow_stream(line)
        else:
            yield from self._follow_file(line)

    def _follow_file(self, line: ChainedLine) -> Iterator[Problem]:
        bad = self._take_bad()
        if not line.linked and self.last is None:
            self.before += 1 + (bad.count if bad else 0)
        elif not line.linked:
            yield from [bad.problem()] if bad else []
            sentence = f"it carries no digest: {_UNCHAINED}"
            yield Problem(kind=ProblemKind.FOREIGN, place=line.place, sentence=sentence)
        elif line.prev == self._chain.head:
            if bad and self.last:
                self._unexplained.append((self.lines, bad.problem()))
            elif bad:
                self.before += bad.count
        elif self._before is None:
            yield from self._begin_in_the_middle(line, bad)
        else:
            found, recent = self._chain.head, self._recent
            yield _cause(line, last=self._before, recent=recent, bad=bad, found=found)
        yield from self._explain(line)

    def _begin_in_the_middle(self, line: ChainedLine, bad: _BadLines | None) -> Iterator[Problem]:
        """The first line follows one that is not here: correct if a rotated copy was removed."""
        if bad:
            self._unexplained.append((self.lines, bad.problem()))
        if line.event == TRUNCATED or (line.event == OPENED and (line.detail or "").startswith(AT_THE_TOP)):
            self.follows = line.prev
            self._anchors.discard(line.prev or "")
        else:
            why = "a file of the record begins with record.opened"
            sentence = f"lines before this one are missing: {why}"
            yield Problem(kind=ProblemKind.MISSING, place=line.place, sentence=sentence, expected=line.prev)

    def _explain(self, line: ChainedLine) -> Iterator[Problem]:
        """The torn lines that this line reports, and those that were not reported in time."""
        unexplained, self._unexplained = self._unexplained, []
        for since, problem in unexplained:
            if line.event == TORN and problem.kind is ProblemKind.TORN:
                yield _explained_by(line, problem)
            elif self.lines - since >= _TORN_WITHIN:
                yield problem
            else:
                self._unexplained.append((since, problem))

    def _follow_stream(self, line: ChainedLine) -> Iterator[Problem]:
        chain, last = self._streams[line.run or ""]
        bad = self._take_bad()
        if line.prev == chain.head:
            self.foreign += bad.count if bad else 0
            return
        if bad and line.event == TORN:
            with_fragment = chain.copy()
            with_fragment.add_fragment(self._fragment)
            if line.prev == with_fragment.head:
                yield _explained_by(line, bad.problem())
                return
        yield _cause(line, last=last, recent=self._recent, bad=None, found=chain.head)

    def _accept(self, line: ChainedLine, raw: RawLine) -> None:
        """Continue from this line, even if something was wrong with it."""
        self._chain.add_entry(raw.data)
        if line.run in self._streams or (line.event == OPENED and line.detail == A_STREAM):
            chain = Chain()
            chain.add_entry(raw.data)
            self._streams[line.run or ""] = chain, line
            if len(self._streams) > _MOST_STREAMS:
                del self._streams[next(iter(self._streams))]
        self._before = line
        self._recent.append(line)
        self._anchors.discard(line.digest)
        if line.linked:
            self.lines += 1
            self.last = line
        self._note_intent(line, raw.fields or {})

    def _note_bad(self, place: Location, raw: RawLine) -> None:
        self._fragment = raw.data if len(raw.data) <= _LONGEST_FRAGMENT else b""
        torn = raw.data != b"" and looks_torn(raw.data)
        if self._bad is None:
            self._bad = _BadLines(first=place, why=raw.why, looks_torn=torn)
        else:
            self._bad.count += 1
            self._bad.looks_torn = self._bad.looks_torn and torn

    def _take_bad(self) -> _BadLines | None:
        bad, self._bad = self._bad, None
        return bad

    def _note_intent(self, line: ChainedLine, fields: Mapping[str, object]) -> None:
        intent = fields.get("intent")
        if not isinstance(intent, str):
            return
        if line.event == OUTCOME:
            self.open_intents.pop(intent, None)
        elif line.event == INTENT and len(self.open_intents) < _MOST_OPEN:
            self.open_intents[intent] = line.place


def _begins_stream(line: ChainedLine) -> bool:
    return line.event == OPENED and line.detail == A_STREAM and line.linked and line.prev is None
