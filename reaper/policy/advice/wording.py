"""Words that several findings share; what a client wrote stands in quotes, as one harmless line."""

from collections.abc import Iterable, Sequence
from typing import Final

from reaper.policy.advice.evidence import Evidence, Key
from reaper.policy.session import Session
from reaper.policy.spans import SECOND, Span, since, words

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
