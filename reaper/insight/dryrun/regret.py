"""How often a rehearsed termination would have been regretted: its client used the session again.

What was seen of a few sessions says little of the next ones, so every rate comes with the highest one that
the same observations leave possible.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from reaper.insight.dryrun.outcomes import DryRunOutcome, ObservedOutcome
from reaper.policy.session import ACTIVE, Identity
from reaper.policy.time import SECOND, Duration, Timestamp

FEW: Final = 0.01
"""The share of regretted terminations that may be borne."""

_SURE: Final = 1.96
"""Standard deviations within which a normal number lies in 95 of 100 cases."""

_MINUTE: Final = 60 * SECOND


class DryRun(NamedTuple):
    """One act of a rehearsal, and what has become of it."""

    server: str
    policy: str
    identity: Identity
    outcome: DryRunOutcome | None
    """None as long as it is watched."""
    at: Timestamp
    idle: Duration
    """How long it had been idle at the act."""
    after: Duration
    """From the act until it was used again, had left, or was looked at last."""
    active: bool = False
    """It was running a statement, and what is called idle here is how long that ran."""
    rules: str = ""
    """The digest of the policy file by which it was judged."""

    @classmethod
    def of(cls, observed: ObservedOutcome, server: str) -> "DryRun":
        """What was learnt from one watched session."""
        watched = observed.watched
        session = watched.candidate.session
        return cls(
            server,
            watched.candidate.policy.name,
            session.identity,
            observed.outcome,
            watched.at,
            watched.idle,
            observed.after,
            session.state == ACTIVE,
            watched.rules,
        )

    @property
    def lasted(self) -> Duration:
        """How long it was idle in all, as far as that is known."""
        return Duration(self.idle + self.after)

    @property
    def counts_as(self) -> DryRunOutcome | None:
        """The outcome if it counts: unused counts after being watched as long as it had been idle."""
        if self.outcome in {DryRunOutcome.UNUSED, None}:
            return DryRunOutcome.UNUSED if self.after >= self.idle else None
        return self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """How many would have been regretted, of how many."""

    unused: int = 0
    left: int = 0
    used_again: int = 0
    unknown: int = 0
    too_soon: int = 0
    """Not watched for long enough to tell."""

    @classmethod
    def of(cls, dry_runs: Iterable[DryRun]) -> "Regret":
        """Count them."""
        counts = Counter(dry_run.counts_as for dry_run in dry_runs)
        return cls(
            unused=counts[DryRunOutcome.UNUSED],
            left=counts[DryRunOutcome.LEFT],
            used_again=counts[DryRunOutcome.USED_AGAIN],
            unknown=counts[DryRunOutcome.UNKNOWN],
            too_soon=counts[None],
        )

    @property
    def acts(self) -> int:
        """All of them."""
        return self.decided + self.unknown + self.too_soon

    @property
    def decided(self) -> int:
        """The dry_runs with a known outcome."""
        return self.unused + self.left + self.used_again

    @property
    def rate(self) -> float | None:
        """The share of sessions that was used again; None without a known outcome."""
        return self.used_again / self.decided if self.decided else None

    @property
    def upper(self) -> float:
        """The highest rate that these observations leave possible, with 95 % confidence."""
        return upper_bound(self.used_again, self.decided)

    @property
    def at_most(self) -> float | None:
        """The rate if everybody who left had been used just before."""
        return (self.used_again + self.left) / self.decided if self.decided else None


def upper_bound(hits: int, of: int) -> float:
    """The upper end of Wilson's interval: 0 of 12 may still be 24 %, and nothing seen may be anything."""
    if not of:
        return 1.0
    share, square = hits / of, _SURE**2
    spread = _SURE * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    # Where everybody was hit the formula comes to 1 but for its rounding.
    return min(max((share + square / (2 * of) + spread) / (1 + square / of), share), 1.0)


class Limit(NamedTuple):
    """An idle limit, and the sessions that it would have matched."""

    span: Duration
    used_again: int
    decided: int


def limit_under(dry_runs: Iterable[DryRun], share: float = FEW) -> Limit | None:
    """The shortest limit at which less than this share of terminations would have been regretted.

    None if no session was used again, or if no limit among the known idle times would do.
    """
    decided = [
        dry_run
        for dry_run in dry_runs
        if dry_run.counts_as in {DryRunOutcome.UNUSED, DryRunOutcome.LEFT, DryRunOutcome.USED_AGAIN}
    ]
    revived = sorted(dry_run.lasted for dry_run in decided if dry_run.counts_as is DryRunOutcome.USED_AGAIN)
    lasted = sorted(dry_run.lasted for dry_run in decided)
    for span in sorted({_rounded_up(each) for each in revived}):
        still_hit = len(revived) - bisect_left(revived, span)
        met = len(lasted) - bisect_left(lasted, span)
        if met and still_hit / met < share:
            return Limit(span, still_hit, met)
    return None


def _rounded_up(span: Duration) -> Duration:
    """The next limit that a person would write: whole seconds up to two minutes, whole minutes above."""
    unit = SECOND if span < 2 * _MINUTE else _MINUTE
    return Duration((span // unit + 1) * unit)


class Freed(NamedTuple):
    """What the terminations would have freed."""

    slots: int
    """At most at one time."""
    hours: float
    """Of sessions, in all."""


def freed(dry_runs: Iterable[DryRun]) -> Freed:
    """Count the slots that were held after the would-be termination, at most at once and in hours."""
    held = [
        (dry_run.at, Timestamp(dry_run.at + dry_run.after))
        for dry_run in dry_runs
        if dry_run.counts_as is not DryRunOutcome.UNKNOWN
    ]
    # Who leaves at the moment at which another is taken makes room first.
    steps = sorted([(begin, 1) for begin, _ in held] + [(end, -1) for _, end in held])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return Freed(most, sum(end - begin for begin, end in held) / (3_600 * SECOND))


def middle(spans: Sequence[Duration]) -> Duration | None:
    """The median, of an even number the upper one; nothing of nothing."""
    return sorted(spans)[len(spans) // 2] if spans else None
