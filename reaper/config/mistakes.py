"""What is wrong with a policy file, each mistake where it stands and with what to write instead."""

import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

Path = tuple[str | int, ...]
"""The way from the top of the file to a value: keys and places in lists."""

TOP: Final[Path] = ()
LONGEST_QUOTE: Final = 60
MOST_TOLD: Final = 1_500
"""A file has so many mistakes when it is something else, or was made by a broken machine."""

_SCHEME: Final = re.compile("//")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mistake:
    """One mistake, for a person and for an editor that jumps to it."""

    file: str
    line: int
    column: int
    where: str
    what: str
    instead: str

    def __str__(self) -> str:
        """The mistake as one line that nothing in the file can break or forge."""
        place = f"{self.file}:{self.line}:{self.column}"
        return printable(f"{place}: {self.where}: {self.what}; {self.instead}")


class BadPolicyFile(Exception):
    """A policy file that is not taken, and everything that is wrong with it."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*mistakes)
        self.mistakes = _told(sorted(mistakes))

    def __str__(self) -> str:
        """One line per mistake, in the order of the file."""
        return "\n".join(map(str, self.mistakes))


def _told(mistakes: list[Mistake]) -> tuple[Mistake, ...]:
    """All of them, unless nobody would read so many."""
    if len(mistakes) <= MOST_TOLD:
        return tuple(mistakes)
    rest = f"{len(mistakes) - MOST_TOLD:,} more mistakes, here and below"
    next_one = replace(mistakes[MOST_TOLD], where="file", what=rest, instead="mend those above first")
    return (*mistakes[:MOST_TOLD], next_one)


class Place(NamedTuple):
    """A line and a column, both counted from 1."""

    line: int
    column: int


class Finding(NamedTuple):
    """A mistake that does not know yet where in the file it stands."""

    path: Path
    what: str
    instead: str
    key: Place | None = None
    """Where the key stands, when it is the key that is wrong rather than what it holds."""


def at_top(file: str, what: str, instead: str) -> Mistake:
    """A mistake of a file as a whole."""
    return Mistake(file=file, line=1, column=1, where="file", what=what, instead=instead)


def quoted(text: str) -> str:
    """A piece of the file between quotes, short and printable."""
    short = _short(text)
    return repr(short) if short == text else repr(short.removesuffix("…")) + "…"


def printable(text: str) -> str:
    """The same text with whatever could move a cursor, break a line or turn the reading direction escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def dotted(path: Path) -> str:
    """A path as people write it: `policies[0].match.role[1]`; the top is `file`."""
    words = ""
    for step in path:
        words += f"[{step}]" if isinstance(step, int) else f".{_short(step)}"
    return words.removeprefix(".") or "file"


def _short(text: str) -> str:
    # What follows in a URL is often a secret, wherever in the file it came to stand.
    start = _SCHEME.search(text[:LONGEST_QUOTE])
    end = start.end() if start else LONGEST_QUOTE
    return text if len(text) <= end else text[:end] + "…"
