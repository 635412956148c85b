"""What a backtest has found, in sentences: the same on the terminal and in the report."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from reaper.policy.spans import SECOND, Span, words

Found = Mapping[str, Any]


def headline(side: Found) -> str:
    """How many of how many applications, and how many of them in vain."""
    taken = side["taken"]
    if not taken:
        return "These policies would have ended nobody."
    of = counted(side["applications_taken"], "application")
    return f"These policies would have ended {counted(taken, 'session')} of {of}; {regret(side)}."


def regret(side: Found) -> str:
    """`0.2 % of them were used again (3 of 1,190 that can be judged; ...)`."""
    judged, again = side["judged"], side["used_again"]
    if not judged:
        return "what became of them cannot be judged yet"
    bound = f"at most {percent(side['regret_at_most'])} with 95 % confidence"
    of = f"{again:,} of {judged:,} that can be judged; {bound}"
    return f"{percent(again / judged)} of them were used again ({of})"


def peaks(found: Found, side: Found) -> str:
    """`The peak of Tue 2025-06-17 14:03 would have been 61 instead of 100 slots, of 97 that ...`."""
    peak, would = side["peak"], side["peak_would"]
    if not peak or not would:
        return "Nothing is known of the slots."
    usable = f"{found['slots']['usable']:,} can be used by ordinary roles"
    was = f"The peak of {moment(peak['at'])} was {peak['used']:,} slots ({usable})"
    told = f"{was}; it would have been {peak['would']:,}."
    if would["at"] == peak["at"]:
        return told
    return f"{told} The highest would have been {would['would']:,}, on {moment(would['at'])}."


def doubts(found: Found, side: Found) -> Iterator[str]:
    """What cannot be known from this history."""
    if side["uncertain"]:
        many = counted(side["uncertain"], "more session")
        yield f"{many} may have been ended: they changed or left between two readings, when they fell due."
    if found["gaps"]:
        unknown = words(Span(round(found["unknown_seconds"] * SECOND)))
        gaps = counted(found["gaps"], "gap")
        yield f"{gaps} of {unknown} in all: nothing is known of that time, and afterwards everybody is new."
    if side["too_soon"]:
        many = counted(side["too_soon"], "session")
        yield f"{many} cannot be judged yet: not watched for as long as they had been idle."
    braked = [f"{row['policy']} ({row['brakes']:,} times)" for row in side["policies"] if row["brakes"]]
    if braked:
        yield f"The brake held: {', '.join(braked)}."


def span_of(found: Found) -> str:
    """`2025-06-11 00:00 to 2025-06-18 00:00 UTC (7d), 60,480 readings, 412 sessions on average`."""
    readings = found["readings"]
    average = found["observations"] / max(readings, 1)
    lasted = words(Span(round(found["seconds"] * SECOND)))
    between = f"{moment(found['began'], day=False)} to {moment(found['ended'], day=False)} UTC ({lasted})"
    return f"{between}, {counted(readings, 'reading')}, {average:,.0f} sessions on average"


MODEL = (
    "As under --dry-run, every session stays in the history, and counts as gone from the moment at which a "
    "policy takes it until its client uses it again: then the client would have had to connect anew."
)


def moment(text: str | None, *, day: bool = True) -> str:
    """`Tue 2025-06-17 14:03`; one outside the calendar as it stands."""
    try:
        return f"{datetime.fromisoformat(text or ''):{'%a ' if day else ''}%Y-%m-%d %H:%M}"
    except ValueError:
        return str(text)


def percent(share: float | None) -> str:
    """`0.2 %`; nothing when it is not known."""
    if share is None:
        return ""
    return f"{100 * share:.1f} %" if share < 1 else "100 %"


def counted(number: int, what: str) -> str:
    """`1 session`, `1,204 sessions`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
