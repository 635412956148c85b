"""What YAML 1.1 makes of a text without quotes: the surprises.

`no` is false, `1:30` is 90, `010` is 8. Here nothing is converted: a text that YAML would guess at stays a
Plain, and whoever wants a name, a number or a duration says in its own words what to write.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import yaml
from yaml.resolver import Resolver


class Kind(StrEnum):
    """What YAML takes a plain text for."""

    TRUTH = "a truth value"
    NUMBER = "a number"
    DATE = "a date"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Plain:
    """A text that stands without quotes and is no text to YAML."""

    text: str
    kind: Kind


_RESOLVER: Final = Resolver()
_KINDS: Final = {
    "tag:yaml.org,2002:bool": Kind.TRUTH,
    "tag:yaml.org,2002:int": Kind.NUMBER,
    "tag:yaml.org,2002:float": Kind.NUMBER,
    "tag:yaml.org,2002:timestamp": Kind.DATE,
    "tag:yaml.org,2002:null": Kind.NOTHING,
}
_LETTERS_FOR_TRUTH: Final = frozenset("yYnN")


def plain(text: str) -> str | Plain:
    """A text without quotes: itself, or what YAML takes it for."""
    # PyYAML leaves the single letters alone, the YAML 1.1 of other tools does not.
    if text in _LETTERS_FOR_TRUTH:
        return Plain(text, Kind.TRUTH)
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    kind = _KINDS.get(tag)
    return text if kind is None else Plain(text, kind)
