"""The refill guard: a pool that opens a new session for each terminated one gains nothing from terminations.

A full pool opens no session until one of its sessions is terminated. An application that leaks, or that
connects for every request, opens as many before a termination as after it. So only new sessions beyond the
usual number count as refills.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from reaper.policy.session import Identity
from reaper.policy.time import SECOND, Duration, Timestamp, exact_words, isoformat


@dataclass(frozen=True, slots=True, kw_only=True)
class RefillGuard:
    """When a policy pauses for a group, and for how long."""

    within: Duration
    """A session that is opened this soon after a termination may be a refill."""
    share: float
    """The share of refilled terminations from which the group is paused."""
    acts: int
    """The number of terminations before the guard decides."""
    pause: Duration
    """The first pause; each further one is twice as long as the one before."""
    longest: Duration
    """The longest pause."""


DEFAULT_REFILL_GUARD: Final = RefillGuard(
    within=Duration(10 * SECOND),
    share=0.9,
    acts=10,
    pause=Duration(600 * SECOND),
    longest=Duration(4 * 3_600 * SECOND),
)


class Group(NamedTuple):
    """The sessions of one identity that one policy terminates."""

    policy: str
    identity: Identity


class PausedGroup(NamedTuple):
    """A group that a policy skips until its pause is over."""

    group: Group
    at: Timestamp
    """When the pause began."""
    until: Timestamp
    refilled: int
    terminated: int
    reason: str


class Refill(NamedTuple):
    """How many terminated sessions were replaced, and the last new session that was counted."""

    places: int
    counted: Timestamp


def refill(ends: Sequence[Timestamp], came: Iterable[Timestamp], before: int, guard: RefillGuard) -> Refill:
    """Match each termination, in order of time, with one new session that was opened soon after it.

    At most as many as were opened beyond the usual number, which is that of an equally long time before.
    """
    newcomers = sorted(moment for moment in came if ends[0] <= moment <= ends[-1] + guard.within)
    usual = before * (ends[-1] - ends[0] + guard.within) / guard.within
    waiting, places, counted = iter(newcomers), 0, Timestamp(0)
    newcomer = next(waiting, None)
    for end in ends:
        while newcomer is not None and newcomer < end:
            newcomer = next(waiting, None)
        if newcomer is not None and newcomer <= end + guard.within:
            places, counted = places + 1, newcomer
            newcomer = next(waiting, None)
    # The number of new sessions varies by itself: fewer than twice the usual number prove nothing.
    if len(newcomers) < 2 * usual:
        return Refill(0, counted)
    return Refill(min(places, int(len(newcomers) - usual)), counted)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefillCounts:
    """The terminations of a group since its last pause, and how many of them were refilled."""

    terminated: int = 0
    refilled: int = 0
    pauses: int = 0
    """Pauses in a row."""
    paused: PausedGroup | None = None
    """The last pause; it may be over."""

    def after(
        self, terminated: int, refilled: int, *, group: Group, guard: RefillGuard, now: Timestamp
    ) -> "RefillCounts":
        """The counts after these terminations; with a new pause if most of them were refilled."""
        terminated, refilled = self.terminated + terminated, self.refilled + refilled
        if terminated < guard.acts:
            return replace(self, terminated=terminated, refilled=refilled)
        if refilled < guard.share * terminated:
            # No refills: half of the counts are kept, so that old terminations weigh less and less.
            return RefillCounts(terminated=terminated // 2, refilled=refilled // 2)
        # The exponent is bounded, because a large power would leave the range of a timestamp.
        pause = min(guard.pause * 2 ** min(self.pauses, 30), max(guard.longest, guard.pause))
        until = Timestamp(now + pause)
        replaced = (
            f"{refilled} of {terminated} terminated sessions were replaced within {exact_words(guard.within)}"
        )
        reason = (
            f"refill guard: {replaced}; paused until {(isoformat(until) or '')[:19]}Z: make this pool smaller"
        )
        paused = PausedGroup(group, now, until, refilled, terminated, reason)
        return RefillCounts(pauses=self.pauses + 1, paused=paused)
