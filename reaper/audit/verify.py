"""Follows an audit log line by line, and finds every line that is not as it was written.

Only a bounded number of lines is kept in memory, however long the audit log is.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final

from reaper.audit.chain import Chain
from reaper.audit.events import A_STREAM, AT_THE_TOP, INTENT, OPENED, OUTCOME, PREV, TRUNCATED
from reaper.audit.reader import LONGEST_LINE, LineSource, Location, RawLine, iterate_lines, looks_torn
from reaper.policy.text import counted

_REMEMBERED: Final = 1_000
"""A digest is looked up among this number of previous lines."""
_MOST_STREAMS: Final = 1_000
_MOST_OPEN: Final = 10_000
_LONGEST_FRAGMENT: Final = 1024 * 1024
_NEEDED: Final = frozenset({"event", "run", "seq", "time", "detail", PREV})


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


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written."""

    kind: ProblemKind
    place: Location | None
    sentence: str
    explained: str | None = None
    """Why this is only what a crash leaves behind; None if it is serious."""

    def __str__(self) -> str:
        """`audit.jsonl:17: changed: ...`."""
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.kind}: {self.sentence}" + (f" ({self.explained})" if self.explained else "")


@dataclass(frozen=True, slots=True)
class ChainedLine:
    """A whole entry, with the fields that verification needs."""

    place: Location
    digest: str
    fields: Mapping[str, object]

    def text(self, field: str) -> str | None:
        """The value of a field, or None if it is missing or no text."""
        value = self.fields.get(field)
        return value if isinstance(value, str) else None

    @property
    def linked(self) -> bool:
        """It carries a digest, or null where the chain begins."""
        return PREV in self.fields

    @property
    def prev(self) -> str | None:
        """The digest that it carries."""
        return self.text(PREV)

    @property
    def begins_stream(self) -> bool:
        """It opens a stream, on which each run has a chain of its own."""
        return self.text("event") == OPENED and self.text("detail") == A_STREAM


@dataclass(slots=True, kw_only=True)
class _BadLines:
    """Consecutive lines that are no entries."""

    first: Location
    why: str
    data: bytes
    """The last of them, if it is not too long."""
    torn: bool
    """They may be the beginnings of entries."""
    count: int = 1

    @property
    def what(self) -> str:
        return self.why if self.count == 1 else f"{self.count} lines from here on: {self.why}"

    def problem(self, why: str = "") -> Problem:
        kind = ProblemKind.TORN if self.torn else ProblemKind.FOREIGN
        return Problem(kind, self.first, "; ".join(filter(None, (self.what, why))))

    def explained_by(self, line: ChainedLine) -> Problem:
        """The digest of the next line includes them: its writer found them there."""
        # A crash leaves a torn line. A line of another program was written by something else.
        explained = f"found by the run that wrote {line.place}" if self.torn else None
        return replace(self.problem(), explained=explained)


def _known_cause(line: ChainedLine, recent: Iterable[ChainedLine]) -> Problem | None:
    """What the line itself and the lines before it show."""
    known = {each.digest: each for each in recent}
    if twin := known.get(line.digest):
        return Problem(ProblemKind.REPEATED, line.place, f"the same line stands at {twin.place}")
    if line.prev is None:
        why = f" ({line.text('detail')})" if line.text("detail") else ""
        sentence = f"a new chain begins here, although lines stand before it{why}"
        return Problem(ProblemKind.BROKEN_OFF, line.place, sentence)
    # The writer kept the digest of the last line in memory, which shows what the truncation took.
    if line.text("event") == TRUNCATED:
        why = f"its writer found the file shortened {line.text('detail')}"
        return Problem(ProblemKind.MISSING, line.place, f"lines before this one are missing: {why}")
    if before := known.get(line.prev):
        why = "what stands between them was inserted, or moved here"
        return Problem(ProblemKind.INSERTED, line.place, f"this line follows {before.place}: {why}")
    return None


def _likely_cause(line: ChainedLine, last: ChainedLine, bad: _BadLines | None) -> Problem:
    """What happened between two entries, where the digest of neither is known."""
    if bad:
        why = f"this is not what {line.place} follows, so it was changed, and not torn by a crash"
        return Problem(ProblemKind.CHANGED, bad.first, f"{bad.what}; {why}")
    # Both lines are of one run: its numbers have no gap unless a line is missing.
    now, then = line.fields.get("seq"), last.fields.get("seq")
    if line.text("run") == last.text("run") and isinstance(now, int) and isinstance(then, int):
        gap = now - then - 1
        if gap == 0:
            why = f"{line.place} follows this line as it was before it was changed"
            return Problem(ProblemKind.CHANGED, last.place, why)
        if gap > 0:
            lines = counted(gap, "line is", "lines are")
            why = f"by their numbers {lines} missing between {last.place} and this one"
            return Problem(ProblemKind.MISSING, line.place, why)
    why = f"{last.place} was changed, or lines between them are missing"
    return Problem(ProblemKind.MISSING, line.place, f"this line follows one that is not here: {why}")


class Verification:
    """Verifies one audit log: a file with its rotated copies in their order, or a stream."""

    def __init__(self, *, heads: set[str]) -> None:
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
        self._heads = heads
        """Heads that were noted elsewhere; each is removed when it is found."""
        self._chain = Chain()
        self._before: ChainedLine | None = None
        self._recent: deque[ChainedLine] = deque(maxlen=_REMEMBERED)
        self._streams: dict[str | None, tuple[Chain, ChainedLine]] = {}
        self._bad: _BadLines | None = None

    def read(self, name: str, stream: LineSource) -> Iterator[Problem]:
        """Follow the next file of the audit log."""
        for raw in iterate_lines(stream):
            place = Location(name, raw.number)
            if raw.unreadable:
                yield Problem(ProblemKind.UNREADABLE, place, raw.why)
                return
            if raw.fields is not None:
                needed = {name: value for name, value in raw.fields.items() if name in _NEEDED}
                line = ChainedLine(place, sha256(raw.data).hexdigest(), needed)
                bad, self._bad = self._bad, None
                yield from self._follow(line, bad)
                self._accept(line, raw)
                self._note_intent(line, raw.fields)
            elif not raw.continues:
                self._note_bad(place, raw)
            self._chain.add(raw)

    def finish(self) -> Iterator[Problem]:
        """The problems that are left at the end of the last file."""
        if self._bad and self._streams:
            # On a stream, lines of other programs are expected.
            self.foreign += self._bad.count
        elif self._bad and self._bad.torn:
            yield self._bad.problem("the next run of the reaper will report it")
        elif self._bad:
            known = self.lines or self.before
            yield self._bad.problem("" if known else "nor is any other line here: it is another file")

    def _follow(self, line: ChainedLine, bad: _BadLines | None) -> Iterator[Problem]:
        if line.text("run") in self._streams:
            yield from self._follow_stream(line, bad)
        elif line.begins_stream and line.linked and line.prev is None:
            self.foreign += bad.count if bad else 0
        else:
            yield from self._follow_file(line, bad)

    def _follow_file(self, line: ChainedLine, bad: _BadLines | None) -> Iterator[Problem]:
        if not line.linked and self.last is None:
            self.before += 1 + (bad.count if bad else 0)
        elif not line.linked:
            yield from [bad.problem()] if bad else []
            sentence = "it carries no digest: it was inserted, or written by a reaper without a chain"
            yield Problem(ProblemKind.FOREIGN, line.place, sentence)
        elif line.prev == self._chain.head:
            # The digest includes these lines, so they were there before this one was written.
            if bad and self.last:
                yield bad.explained_by(line)
            elif bad:
                self.before += bad.count
        elif self._before is None:
            yield from self._begin_in_the_middle(line, bad)
        else:
            yield _known_cause(line, self._recent) or _likely_cause(line, self._before, bad)

    def _begin_in_the_middle(self, line: ChainedLine, bad: _BadLines | None) -> Iterator[Problem]:
        """The first line follows one that is not here: correct if a rotated copy was removed."""
        yield from [bad.problem()] if bad else []
        if line.text("event") == TRUNCATED or (
            line.text("event") == OPENED and (line.text("detail") or "").startswith(AT_THE_TOP)
        ):
            self.follows = line.prev
            self._heads.discard(line.prev or "")
        else:
            # Rotation cuts an audit log only between files, never within one.
            sentence = f"lines before this one are missing: a file of the audit log begins with {OPENED}"
            yield Problem(ProblemKind.MISSING, line.place, sentence)

    def _follow_stream(self, line: ChainedLine, bad: _BadLines | None) -> Iterator[Problem]:
        chain, last = self._streams[line.text("run")]
        if line.prev == chain.head:
            # On a stream, other programs may write between two lines.
            self.foreign += bad.count if bad else 0
            return
        # After a stall, the run hashed what it could write of the torn line.
        with_fragment = chain.copy()
        with_fragment.add_fragment(bad.data if bad else b"")
        if bad and line.prev == with_fragment.head:
            yield bad.explained_by(line)
        else:
            yield _known_cause(line, self._recent) or _likely_cause(line, last, None)

    def _accept(self, line: ChainedLine, raw: RawLine) -> None:
        """Continue from this line, even if something was wrong with it."""
        if line.text("run") in self._streams or line.begins_stream:
            chain = Chain()
            chain.add(raw)
            self._streams[line.text("run")] = chain, line
            # The oldest run has most likely ended.
            if len(self._streams) > _MOST_STREAMS:
                del self._streams[next(iter(self._streams))]
        self._before = line
        self._recent.append(line)
        self._heads.discard(line.digest)
        if line.linked:
            self.lines += 1
            self.last = line

    def _note_bad(self, place: Location, raw: RawLine) -> None:
        torn = 0 < len(raw.data) < LONGEST_LINE and looks_torn(raw.data)
        if self._bad is None:
            self._bad = _BadLines(first=place, why=raw.why, data=b"", torn=torn)
        else:
            self._bad.count += 1
            self._bad.torn = self._bad.torn and torn
        self._bad.data = raw.data if len(raw.data) <= _LONGEST_FRAGMENT else b""

    def _note_intent(self, line: ChainedLine, fields: Mapping[str, object]) -> None:
        intent = fields.get("intent")
        if not isinstance(intent, str):
            return
        if line.text("event") == OUTCOME:
            self.open_intents.pop(intent, None)
        elif line.text("event") == INTENT and len(self.open_intents) < _MOST_OPEN:
            self.open_intents[intent] = line.place
