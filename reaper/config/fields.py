"""Single values of the policy file: from what is written to what is meant, or a sentence."""

import re
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from reaper.config.scalars import Kind, Plain
from reaper.config.wording import did_you_mean, refuse, shown
from reaper.policy.protections import SELF, SETTABLE
from reaper.policy.time import Span, parse_span

_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_FRACTION: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?|\.[0-9]{1,6}")


def text(value: object) -> str:
    """A text; what YAML takes for something else wants quotes."""
    if isinstance(value, str):
        return value
    return _no_text(value)


def _no_text(value: object) -> NoReturn:
    if not isinstance(value, Plain):
        refuse(f"{shown(value)} stands where one text is wanted", "write a text")
    if value.kind is Kind.NOTHING:
        refuse("nothing is written here", "write a value, or leave it out")
    refuse(f"{shown(value)} is {value.kind} to YAML", f'write "{shown(value)}", in quotes')


def duration(least: str, most: str) -> Callable[[object], Span]:
    """A reader of durations between these two."""
    low, high = parse_span(least), parse_span(most)

    def read(value: object) -> Span:
        span = _span(value)
        if span < low:
            refuse(f"{shown(value)} is too short", f"write {least} or more")
        if span > high:
            refuse(f"{shown(value)} is too long", f"write {most} or less")
        return span

    return read


def _span(value: object) -> Span:
    for_example = "write for example 90s, 10m, 1h30m or 2d"
    if isinstance(value, Plain) and _WHOLE.fullmatch(value.text):
        refuse(
            f"{value.text} has no unit",
            f"write {value.text}s, {value.text}m or {value.text}h" if value.text != "0" else for_example,
        )
    if isinstance(value, Plain) and value.kind is not Kind.NOTHING:
        refuse(f"{shown(value)} is {value.kind} to YAML, not a duration", for_example)
    written = text(value)
    try:
        return parse_span(written)
    except ValueError:
        refuse(f"{shown(value)} is not a duration", for_example)


def share(value: object) -> float:
    """A percentage above 0% and up to 100%, as a fraction."""
    if isinstance(value, Plain) and _FRACTION.fullmatch(value.text):
        number = float(value.text)
        percent = number * 100 if number <= 1 and "." in value.text else number
        meant = percent if 0 < percent <= 100 else 80  # noqa: PLR2004 - the whole of it, and an example
        refuse(f"{value.text} has no percent sign", f"write {meant:.6g}%")
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if not found:
        refuse(f"{shown(value)} is not a percentage", "write for example 80%")
    fraction = float(found[1]) / 100
    if not 0 < fraction <= 1:
        refuse(f"{shown(value)} is no share of anything", "write more than 0% and at most 100%")
    return fraction


def whole(least: int) -> Callable[[object], int]:
    """A reader of whole numbers from here on."""

    def read(value: object) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            refuse(f"{shown(value)} is a text, for it stands in quotes", f"write {value}")
        if not isinstance(value, Plain) or not _WHOLE.fullmatch(value.text.removeprefix("-")):
            refuse(*_no_whole_number(value))
        number = int(value.text)
        if number < least:
            refuse(f"{value.text} is too small", f"write {least} or more")
        return number

    return read


def _no_whole_number(value: object) -> tuple[str, str]:
    if isinstance(value, Plain) and value.kind is Kind.NUMBER:
        if re.fullmatch(r"0[0-7_]+", value.text):
            return f"{shown(value)} is an octal number to YAML", "write it without the leading zero"
        if ":" in value.text:
            return f"{shown(value)} counts in sixties to YAML", "write a whole number such as 10"
    return f"{shown(value)} is not a whole number up to 999999999", "write one such as 10"


def truth(value: object) -> bool:
    """True or false, and none of YAML's other words for them."""
    if not isinstance(value, Plain) or value.text not in ("true", "false"):
        refuse(f"{shown(value)} is neither true nor false", "write true, or leave the key out")
    return value.text == "true"


def choice(known: Iterable[str]) -> Callable[[object], str]:
    """A reader of one of these words; `off` is a word here, whatever YAML says."""
    words = tuple(known)

    def read(value: object) -> str:
        written = value.text if isinstance(value, Plain) else value
        if not isinstance(written, str) or not written:
            refuse(f"{shown(value)} stands where a word is wanted", f"write one of {', '.join(words)}")
        if written not in words:
            refuse(f"{shown(value)} is none of the words known here", did_you_mean(written, words))
        return written

    return read


def version(value: object) -> int:
    """The version of the schema, of which there is one."""
    if not isinstance(value, Plain) or value.text != "1":
        refuse(f"{shown(value)} is no version known to this reaper", "write 1")
    return 1


_protection = choice(SETTABLE)


def protection(value: object) -> str:
    """A built-in protection that a policy may set aside."""
    if value == SELF:
        refuse(f"the protection {SELF!r} can never be set aside", "delete it")
    return _protection(value)


def name(pattern: str, said: str) -> Callable[[object], str]:
    """A reader of names of this form, at most 63 characters long."""
    form = re.compile(pattern)

    def read(value: object) -> str:
        written = text(value)
        if not form.fullmatch(written):
            refuse(f"{shown(value)} is no name", said)
        return written

    return read
