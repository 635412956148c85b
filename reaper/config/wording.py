"""The sentences that refuse a value."""

import difflib
from collections.abc import Iterable
from typing import Final, NoReturn

from reaper.config.mistakes import quoted
from reaper.config.scalars import Kind, Plain

_LONGEST_GUESS: Final = 64


class BadValue(Exception):
    """A value that cannot be read, and what to write instead."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}; {instead}")
        self.what = what
        self.instead = instead


def refuse(what: str, instead: str) -> NoReturn:
    """Say what is wrong with a value and what to write instead."""
    raise BadValue(what, instead)


def guess(text: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """What was probably meant."""
    if len(text) > _LONGEST_GUESS:
        return None
    plain = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(text.casefold(), plain, n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """The name that was probably meant, or all there are."""
    names = list(known)
    meant = guess(text, names)
    return f"did you mean {quoted(meant)}?" if meant else f"write one of {', '.join(names)}"


def shown(value: object) -> str:
    """A value of the file, as a message speaks of it."""
    match value:
        case Plain(kind=Kind.NOTHING):
            return "nothing"
        case Plain(text=text):
            # Only letters, digits and a few signs ever look like a number, a date or a truth value.
            return text if len(text) <= _LONGEST_GUESS and text.isprintable() else quoted(text)
        case str():
            return quoted(value)
        case dict():
            return "a map"
        case list():
            return "a list"
    return type(value).__name__
