"""What advice is made of: a finding, the numbers behind it, and what would cure it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reaper.insight.advice.evidence import Evidence, Key
from reaper.policy.session import Session
from reaper.policy.time import SECOND, Span, since, words

_FEW: Final = 3


def many(count: int, one: str, several: str | None = None) -> str:
    """`1 session`, `12 sessions`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def who(key: Key) -> str:
    """An application under a role, at the beginning of a sentence."""
    named = f"application {key.application!r}" if key.application else "the application without a name"
    return f"{named} (role {key.role!r})"


def short(key: Key) -> str:
    """The same in a list."""
    return f"{key.application!r} of {key.role!r}" if key.application else f"nameless of {key.role!r}"


def listed(names: Sequence[str], *, most: int = _FEW) -> str:
    """A few of many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def about(span: float) -> str:
    """A span without what nobody wants to know: `31s`, `2h11m`, and `0.4s` below a second."""
    return words(Span(round(span))) if span >= SECOND else f"{span / SECOND:.2g}s"


def watched(evidence: Evidence) -> str:
    """How long and how often: `in 11 looks over 10s`."""
    if evidence.looks == 1:
        return "in one look"
    return f"in {evidence.looks:,} looks over {about(evidence.span)}"


def lately(evidence: Evidence) -> str:
    """The same of what has happened lately: a long history says nothing of now."""
    return watched(evidence) if evidence.lately == evidence.span else f"in the last {about(evidence.lately)}"


def longest_idle(sessions: Iterable[Session], evidence: Evidence) -> Span:
    """For how long the one has been in its state that has been so for longest."""
    ages = (since(session.state_change, evidence.last.at) for session in sessions)
    return max((age for age in ages if age is not None), default=Span(0))


def percent(share: float) -> str:
    """A share for people: `61 %`."""
    return f"{100 * share:.0f} %"


_LONGEST: Final = 63
"""Bytes. The server would cut a longer name, and mean somebody else by it."""


def identifier(name: str | None) -> str | None:
    """A name in double quotes; nothing for what no name of a server can be."""
    if not name or "\0" in name or _broken(name) or len(name.encode()) > _LONGEST:
        return None
    return _quoted(name, '"')


def literal(text: str) -> str | None:
    """A text in single quotes; nothing for what no text of a server can be."""
    return None if "\0" in text or _broken(text) else _quoted(text, "'")


def _quoted(text: str, quote: str) -> str:
    doubled = text.replace(quote, 2 * quote)
    if text.isprintable() and (quote == '"' or "\\" not in text):
        return f"{quote}{doubled}{quote}"
    return f"U&{quote}{''.join(map(_escaped, doubled))}{quote}"


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\{code:04X}" if code <= 0xFFFF else f"\\+{code:06X}"  # noqa: PLR2004 (four digits end there)


def _broken(text: str) -> bool:
    """Whether it holds half a pair of surrogates, which no encoding takes."""
    return any("\ud800" <= character <= "\udfff" for character in text)


_MINUTE: Final = 60 * SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_STEPS: Final = (
    *(part * SECOND // 10 for part in (1, 2, 5)),
    *(count * SECOND for count in (1, 2, 5, 10, 15, 30)),
    *(count * _MINUTE for count in (1, 2, 5, 10, 15, 30)),
    *(count * _HOUR for count in (1, 2, 4, 8, 12)),
    *(count * _DAY for count in (1, 2, 7, 14)),
)
_SETTING_UNITS: Final = {"d": _DAY, "h": _HOUR, "min": _MINUTE, "s": SECOND, "ms": SECOND // 1_000}
_TENS: Final = 20


def round_span(span: float) -> Span | None:
    """The next round span that is no shorter; nothing beyond two weeks, which is no limit any more."""
    return next((Span(step) for step in _STEPS if step >= span), None)


def setting(span: Span) -> str:
    """A span as a setting of the server spells it: `500ms`, `5min`, `2h`, `1d`."""
    name, unit = next((name, unit) for name, unit in _SETTING_UNITS.items() if span % unit == 0)
    return f"{span // unit}{name}"


def headroom(count: int) -> int:
    """Half as many again and at least five more, on a round number."""
    enough = max(math.ceil(count * 1.5), count + 5)
    step = 5 if enough <= 10 * _TENS else 10 * _TENS // 4
    return math.ceil(enough / step) * step


class Urgency(StrEnum):
    """How soon somebody should do something."""

    NOW = "now"
    """Clients are refused, or about to be, or wait for a lock that nobody will give back."""
    SOON = "soon"
    """It gets worse by itself."""
    WORTH = "worth"
    """Nothing breaks; it would be better otherwise."""

    @property
    def acts(self) -> bool:
        """Whether it needs somebody to act."""
        return self is not Urgency.WORTH


class Sure(StrEnum):
    """How sure the numbers make us."""

    COUNTED = "counted"
    """It is what the server says."""
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """One way to mend it, and what that costs or could break."""

    does: str
    sql: str = ""
    """Statements to copy as they stand, each on a line of its own; every name in them is quoted."""
    setting: str = ""
    """A line for the configuration of something that is not the server."""
    costs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that could be better, as far as the numbers go."""

    topic: str
    urgency: Urgency
    says: str
    sure: Sure
    evidence: tuple[str, ...]
    """The numbers, each in a sentence."""
    cures: tuple[Cure, ...] = ()
    role: str | None = None
    application: str | None = None
    weight: float = 0.0
    """Among findings of one urgency the heavier is told first: sessions, mostly."""
