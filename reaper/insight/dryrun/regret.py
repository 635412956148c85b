"""The regret of a policy: the share of dry-run sessions that were used again.

A few observations say little about the next ones, so every rate comes with the highest rate that the same
observations leave possible.
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
"""The share of regretted terminations below which a policy may be enforced."""

_Z_95: Final = 1.96
"""The standard deviations within which 95 % of a normal distribution lie."""

_MINUTE: Final = 60 * SECOND
_DECIDED: Final = frozenset({DryRunOutcome.UNUSED, DryRunOutcome.LEFT, DryRunOutcome.USED_AGAIN})


class DryRun(NamedTuple):
    """One dry run of a session, and its outcome."""

    server: str
    policy: str
    identity: Identity
    outcome: DryRunOutcome | None
    """None while it is watched."""
    at: Timestamp
    idle: Duration
    """The time in its state at the dry run."""
    after: Duration
    """From the dry run until it was used, was gone, or was checked last."""
    active: bool = False
    """It ran a statement; `idle` is the run time of the statement."""
    rules: str = ""
    """The digest of the policy file."""

    @classmethod
    def of(cls, observed: ObservedOutcome, server: str) -> "DryRun":
        """The dry run of which this is the outcome."""
        watched = observed.watched
        policy, session = watched.candidate.policy.name, watched.candidate.session
        times = watched.at, watched.idle, observed.after
        return cls(
            server, policy, session.identity, observed.outcome, *times, session.state == ACTIVE, watched.rules
        )

    @property
    def lasted(self) -> Duration:
        """The known idle time in all."""
        return Duration(self.idle + self.after)

    @property
    def counts_as(self) -> DryRunOutcome | None:
        """The outcome if it counts: unused counts after being watched as long as it had been idle."""
        if self.outcome in {DryRunOutcome.UNUSED, None}:
            return DryRunOutcome.UNUSED if self.after >= self.idle else None
        return self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """The number of dry runs with each outcome."""

    unused: int = 0
    left: int = 0
    used_again: int = 0
    unknown: int = 0
    too_soon: int = 0
    """Not watched for long enough."""

    @classmethod
    def of(cls, dry_runs: Iterable[DryRun]) -> "Regret":
        """Count them."""
        return cls.counted(Counter(dry_run.counts_as for dry_run in dry_runs))

    @classmethod
    def counted(cls, counts: "Counter[DryRunOutcome | None]") -> "Regret":
        """The regret of these counts."""
        return cls(
            unused=counts[DryRunOutcome.UNUSED],
            left=counts[DryRunOutcome.LEFT],
            used_again=counts[DryRunOutcome.USED_AGAIN],
            unknown=counts[DryRunOutcome.UNKNOWN],
            too_soon=counts[None],
        )

    @property
    def total(self) -> int:
        """The number of dry runs."""
        return self.decided + self.unknown + self.too_soon

    @property
    def decided(self) -> int:
        """The number of dry runs with a known outcome."""
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
        """The rate if all sessions that left had been used just before."""
        return (self.used_again + self.left) / self.decided if self.decided else None


def upper_bound(hits: int, of: int) -> float:
    """The upper end of Wilson's interval: 0 of 12 may still be 24 %; 1.0 without observations."""
    if not of:
        return 1.0
    share, square = hits / of, _Z_95**2
    spread = _Z_95 * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    # With hits == of the formula is 1 but for its rounding error.
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
    decided = [dry_run for dry_run in dry_runs if dry_run.counts_as in _DECIDED]
    used = sorted(dry_run.lasted for dry_run in decided if dry_run.counts_as is DryRunOutcome.USED_AGAIN)
    lasted = sorted(dry_run.lasted for dry_run in decided)
    for span in sorted({_rounded_up(each) for each in used}):
        still_used = len(used) - bisect_left(used, span)
        matched = len(lasted) - bisect_left(lasted, span)
        if matched and still_used / matched < share:
            return Limit(span, still_used, matched)
    return None


def _rounded_up(span: Duration) -> Duration:
    """The next round limit: whole seconds up to two minutes, whole minutes above."""
    unit = SECOND if span < 2 * _MINUTE else _MINUTE
    return Duration((span // unit + 1) * unit)


class Freed(NamedTuple):
    """What the terminations would have freed: the most slots at one time, and session-hours in all."""

    slots: int
    hours: float


def freed(dry_runs: Iterable[DryRun]) -> Freed:
    """The slots that would have been free until each session was used, was gone, or was checked last."""
    known = [dry_run for dry_run in dry_runs if dry_run.counts_as is not DryRunOutcome.UNKNOWN]
    # At one moment, ends (-1) sort before begins: the slots of sessions that exit then are free already.
    steps = sorted(
        [(dry_run.at, 1) for dry_run in known] + [(dry_run.at + dry_run.after, -1) for dry_run in known]
    )
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return Freed(most, sum(dry_run.after for dry_run in known) / (3_600 * SECOND))


def median(spans: Sequence[Duration]) -> Duration | None:
    """The median (of an even number the upper one); None without values."""
    return sorted(spans)[len(spans) // 2] if spans else None
