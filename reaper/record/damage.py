"""What verification finds: where, what was expected, what is there, and what that means in a sentence."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


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
