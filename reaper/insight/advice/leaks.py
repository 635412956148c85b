"""Who opens connections and forgets them."""

from collections.abc import Iterator
from typing import Final

from reaper.insight.advice.evidence import Crowd, Evidence
from reaper.insight.advice.finding import (
    Cure,
    Finding,
    Sure,
    Urgency,
    about,
    lately,
    longest_idle,
    many,
    percent,
    who,
)
from reaper.insight.advice.known_tools import ordinary
from reaper.insight.advice.slots import GONE
from reaper.insight.advice.timeouts import idle_session_cure
from reaper.policy.time import SECOND, Span

FEWEST: Final = 5
"""Fewer idle sessions are no finding: every pool keeps some."""
MOSTLY: Final = 0.5
_FEWEST_IN_VAIN: Final = 3
_IN_VAIN_SHARE: Final = 1 / 3
_HOUR: Final = Span(3_600 * SECOND)
_TWO_HOURS: Final = 2
_MOST: Final = 5


def is_suspect(crowd: Crowd) -> bool:
    """Whether it went on opening connections while others of its own lay idle, and closes none of them."""
    quiet = len(crowd.quiet)
    return (
        quiet >= FEWEST
        and quiet >= crowd.count * MOSTLY
        and crowd.in_vain >= max(_FEWEST_IN_VAIN, quiet * _IN_VAIN_SHARE)
        # A pool that renews its connections opens one for each that it closes.
        and not (crowd.closed and crowd.closed >= crowd.opened)
    )


def leaks(evidence: Evidence) -> Iterator[Finding]:
    """Each application that seems to forget its connections."""
    suspects = sorted(filter(is_suspect, ordinary(evidence)), key=lambda each: -len(each.quiet))
    urgency = Urgency.NOW if evidence.last.slots.share_used >= GONE else Urgency.SOON
    for crowd in suspects[:_MOST]:
        yield Finding(
            topic="leak",
            urgency=urgency,
            sure=_sure(crowd, evidence),
            says=f"{who(crowd.key)} seems to leak connections",
            evidence=tuple(_evidence(crowd, evidence)),
            cures=tuple(_cures(crowd, evidence)),
            role=crowd.key.role,
            application=crowd.key.application,
            weight=len(crowd.quiet),
        )
    if rest := suspects[_MOST:]:
        yield Finding(
            topic="leak",
            urgency=urgency,
            sure=Sure.POSSIBLE,
            says=f"{many(len(rest), 'more application')} with fewer idle sessions may leak them too",
            evidence=(f"{many(sum(len(each.quiet) for each in rest), 'idle session')} in all",),
        )


def _sure(crowd: Crowd, evidence: Evidence) -> Sure:
    grew = evidence.looks > 1 and crowd.opened > crowd.closed
    return Sure.LIKELY if grew else Sure.POSSIBLE


def _evidence(crowd: Crowd, evidence: Evidence) -> Iterator[str]:
    quiet = len(crowd.quiet)
    yield (
        f"{quiet:,} of its {many(crowd.count, 'session')} ({percent(quiet / crowd.count)}) have been "
        f"idle for more than {about(evidence.quiet)}, the longest for "
        f"{about(longest_idle(crowd.quiet, evidence))}"
    )
    yield (
        f"{crowd.in_vain:,} were opened while two or more from the same address already lay idle, and still "
        "do: a pool would have used those first"
    )
    if evidence.looks > 1:
        used = f"{crowd.used:,}" if crowd.used else "none"
        yield f"{lately(evidence)} it opened {crowd.opened:,}, closed {crowd.closed:,}, and used {used}"
    if evidence.span < _HOUR and (rate := _in_an_hour(crowd, evidence)):
        free = max(evidence.usable - evidence.last.slots.used, 0)
        lasts = f"; at that pace the {free:,} free slots last {_hours(free / rate)}" if free else ""
        yield f"{rate:,} were opened within the last hour{lasts}"
    if _sure(crowd, evidence) is Sure.POSSIBLE:
        yield (
            "to be surer, look for longer (`--for`): several small pools behind one address look like "
            "this too"
        )


def _in_an_hour(crowd: Crowd, evidence: Evidence) -> int:
    """How many of those are there that it opened in the last hour, if it is older than that."""
    ages = [evidence.last.at - session.id.backend_start for session in crowd.sessions]
    return sum(age < _HOUR for age in ages) if max(ages) >= _HOUR else 0


def _hours(count: float) -> str:
    return f"{count:.0f} hours" if count >= _TWO_HOURS else f"{60 * count:.0f} minutes"


def _cures(crowd: Crowd, evidence: Evidence) -> Iterator[Cure]:
    yield Cure(
        does=(
            "in the application: give every connection back on every path, errors too (`with`, "
            "`finally`), and let its pool complain about whoever keeps one for too long"
        ),
        costs="a release of the application; nothing else ends a leak",
    )
    yield Cure(
        does="until then, a policy that ends what is forgotten",
        setting="reaper advise --policy starting.yaml",
        costs="a client that does come back to such a session sees an error; it is a dry run at first",
    )
    yield from idle_session_cure(crowd, evidence)
