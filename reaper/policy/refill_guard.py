"""Churn: a pool that opens a new session for each that goes, so that terminating them changes nothing.

Told from a leak by what came before. A pool that is full opens nothing until one is taken from it; an
application that leaks, or that connects anew for every request, comes as often before a termination as after.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from reaper.policy.session import Identity
from reaper.policy.time import SECOND, Instant, Span, exact_words, isoformat


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """When a policy leaves a group alone, and for how long."""

    within: Span
    """Who comes so soon after a termination has taken its place."""
    share: float
    """From this share of refilled places on it is churn."""
    acts: int
    """After so many terminations."""
    pause: Span
    """For how long the group is left alone the first time; each time it goes on, for twice as long."""
    longest: Span
    """But no longer than this."""


DEFAULT_CHURN: Final = Churn(
    within=Span(10 * SECOND),
    share=0.9,
    acts=10,
    pause=Span(600 * SECOND),
    longest=Span(4 * 3_600 * SECOND),
)


class Group(NamedTuple):
    """Sessions of one kind that one policy takes."""

    policy: str
    identity: Identity


class Refill(NamedTuple):
    """How many terminated sessions were replaced, and the last new session that was counted."""

    places: int
    counted: Instant


def refill(ends: Sequence[Instant], came: Iterable[Instant], before: int, churn: Churn) -> Refill:
    """Match each termination, in order of time, with one new session that came soon after it.

    At most as many as came beyond the usual number, which is that of an equally long time before.
    """
    newcomers = sorted(moment for moment in came if ends[0] <= moment <= ends[-1] + churn.within)
    usual = before * (ends[-1] - ends[0] + churn.within) / churn.within
    waiting, places, counted = iter(newcomers), 0, Instant(0)
    newcomer = next(waiting, None)
    for end in ends:
        while newcomer is not None and newcomer < end:
            newcomer = next(waiting, None)
        if newcomer is not None and newcomer <= end + churn.within:
            places, counted = places + 1, newcomer
            newcomer = next(waiting, None)
    # Twice as many: where newcomers come all the time their number wavers, and a few more mean nothing.
    if len(newcomers) < 2 * usual:
        return Refill(0, counted)
    return Refill(min(places, int(len(newcomers) - usual)), counted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen of a group since its last pause."""

    acts: int = 0
    refilled: int = 0
    pauses: int = 0
    """How often it was left alone, without having calmed down in between."""
    until: Instant | None = None
    """It is, or was, left alone until then."""
    because: tuple[int, int] = (0, 0)
    """How many came back, of how many acts, when that began."""

    def judged(self, acts: int, taken_again: int, *, churn: Churn, now: Instant) -> "Evidence":
        """What is known after these."""
        seen = replace(self, acts=self.acts + acts, refilled=self.refilled + taken_again)
        if seen.acts < churn.acts:
            return seen
        if seen.refilled >= churn.share * seen.acts:
            # Bounded first: no clock reaches the thousandth doubling.
            pause = min(churn.pause * 2 ** min(self.pauses, 30), max(churn.longest, churn.pause))
            because = seen.refilled, seen.acts
            return Evidence(pauses=self.pauses + 1, until=Instant(now + pause), because=because)
        # Calm: what was seen long ago weighs less and less.
        return Evidence(acts=seen.acts // 2, refilled=seen.refilled // 2)


class BackOff(NamedTuple):
    """A group that is left alone, and why."""

    until: Instant
    reason: str


def back_off(evidence: Evidence, churn: Churn) -> BackOff | None:
    """What the evidence comes to: nothing, as long as it has shown no churn."""
    if evidence.until is None:
        return None
    came_back, acts = evidence.because
    came = f"{came_back} of {acts} came back within {exact_words(churn.within)}"
    until = (isoformat(evidence.until) or "")[:19]
    return BackOff(evidence.until, f"churn: {came}; left alone until {until}Z: size this pool down")
