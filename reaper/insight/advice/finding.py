"""Findings, the numbers behind them and their fixes; durations and names as sentences and SQL spell them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reaper.policy.time import SECOND, Duration, exact_words, parse_duration, words


class Urgency(StrEnum):
    """How soon a finding needs action."""

    NOW = "now"
    """Clients are refused, or soon will be, or wait for a lock of an idle session."""
    SOON = "soon"
    """It gets worse without help."""
    WORTH = "worth"
    """Nothing breaks, but something can be improved."""


class Confidence(StrEnum):
    """How certain the numbers make a finding."""

    COUNTED = "counted"
    """The server itself reports it."""
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True)
class Fix:
    """One way to fix a finding, and what that costs or could break."""

    action: str
    sql: str = ""
    """Statements to copy as they are, one per line; every name in them is quoted."""
    setting: str = ""
    """Lines for the configuration of something other than the server, or commands."""
    cost: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with the connections of a server, as far as the numbers show."""

    topic: str
    urgency: Urgency
    confidence: Confidence
    title: str
    evidence: tuple[str, ...]
    """The numbers, each in a sentence."""
    fixes: tuple[Fix, ...] = ()
    role: str | None = None
    application: str | None = None


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first names, and the number of the others."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def about(span: float) -> str:
    """Return a duration in whole seconds, such as `31s` or `2h11m`; below a second `0.4s`."""
    return words(Duration(round(span))) if span >= SECOND else f"{span / SECOND:.2g}s"


_ROUND: Final = "100ms 200ms 500ms 1s 2s 5s 10s 15s 30s 1m 2m 5m 10m 15m 30m 1h 2h 4h 8h 12h 1d 2d 7d 14d"
_ROUND_SPANS: Final = tuple(map(parse_duration, _ROUND.split()))


def round_span(span: float) -> Duration | None:
    """Return the next round duration that is not shorter; None beyond two weeks, which is no limit."""
    return next((each for each in _ROUND_SPANS if each >= span), None)


def setting(span: Duration) -> str:
    """Return a round duration as PostgreSQL's settings spell it: `500ms`, `5min`, `2h`, `1d`."""
    return re.sub("m$", "min", exact_words(span))


# PostgreSQL would truncate a longer name, and then the statement would change another role.
_MAX_NAME_BYTES: Final = 63


def identifier(name: str | None) -> str | None:
    """Return a name in double quotes; None if it is not printable, or cannot be a name in PostgreSQL."""
    if not name or not name.isprintable() or len(name.encode()) > _MAX_NAME_BYTES:
        return None
    return '"{}"'.format(name.replace('"', '""'))


def literal(text: str) -> str | None:
    """Return a text in single quotes; None if it is not printable."""
    if not text.isprintable():
        return None
    doubled = text.replace("'", "''")
    # Without E the meaning of a backslash depends on standard_conforming_strings.
    return "E'{}'".format(doubled.replace("\\", "\\\\")) if "\\" in text else f"'{doubled}'"
