"""The numbers of one snapshot and its plan; pure, and bounded whatever names clients choose."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from reaper.policy.plan import Candidate, Outcome, Plan, Result, SkipReason
from reaper.policy.protections import BUILT_IN
from reaper.policy.rules import Rules
from reaper.policy.session import IDLE, Session, Snapshot
from reaper.policy.text import printable
from reaper.policy.time import Duration, Timestamp, seconds, since
from reaper.telemetry.metrics.exposition import Sample

TOP_APPLICATIONS: Final = 10
"""Applications that have a label of their own; the others are counted as `other`."""
MAX_NAMES: Final = 100
KEPT_SECONDS: Final = 86_400.0
"""A name that was not among the largest for a day loses its label."""
OTHER: Final = "other"
_UNNAMED: Final = "(unnamed)"
_MAX_NAME: Final = 100
"""Characters of a name that count: names that differ only behind them are one."""

_LIMITS: Final = (
    SkipReason.KEEP,
    SkipReason.MAX_SESSIONS,
    SkipReason.SAFETY_LIMIT,
    SkipReason.FIRST_SIGHTING,
    SkipReason.REFILL_GUARD,
    SkipReason.MAX_PER_CYCLE,
    SkipReason.NO_EFFECT,
)
"""Reasons to skip a session that a policy would terminate otherwise."""
_OTHER_REASONS: Final = (SkipReason.ALLOWLIST, SkipReason.WHEN, SkipReason.DURING)
_SKIP_REASONS: Final = ("protect", *BUILT_IN, *_OTHER_REASONS, *_LIMITS)
_ENDED: Final = {Result.TERMINATED, Result.CANCELLED}


class ApplicationLabels:
    """The application names that had a label during the last day, up to a maximum."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def admit(self, names: Sequence[str], now: float) -> Collection[str]:
        """Return those of these names that have a label, or for which there is room."""
        self._last = {name: last for name, last in self._last.items() if now - last < KEPT_SECONDS}
        for name in names:
            if name in self._last or len(self._last) < MAX_NAMES:
                self._last[name] = now
        return [name for name in names if name in self._last]


def of_cycle(snapshot: Snapshot, plan: Plan, rules: Rules) -> Iterator[Sample]:
    """The gauges that every cycle sets."""
    yield "slots_max", (), snapshot.slots.total
    yield "slots_reserved", (), snapshot.slots.reserved
    yield "slots_used", (), snapshot.slots.used
    yield "unreadable_sessions", (), snapshot.unreadable
    for labels, count in candidates(plan, rules).items():
        yield "candidates", labels, count
    skipped = Counter(dict.fromkeys(map(str, _SKIP_REASONS), 0))
    skipped.update(skip.protection or skip.by.value for skip in plan.matched_skips)
    for reason, count in skipped.items():
        yield "skipped", (reason,), count


def of_sessions(snapshot: Snapshot, labels: ApplicationLabels, now: float) -> Iterator[Sample]:
    """The gauges for which every session must be in the snapshot."""
    idle = (session.state_change for session in snapshot.sessions if session.state == IDLE)
    yield "oldest_idle_seconds", (), _oldest(idle, snapshot.at)
    yield "oldest_transaction_seconds", (), _oldest((s.xact_start for s in snapshot.sessions), snapshot.at)
    named = Counter(map(_application, snapshot.sessions))
    # By name where counts are equal: the labels must not change with the order of rows.
    ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    top = labels.admit([name for name, _ in ranked[:TOP_APPLICATIONS]], now)
    counts = Counter[tuple[str, str]]()
    for session in snapshot.sessions:
        name = _application(session)
        counts[session.state or "unknown", name if name in top else OTHER] += 1
    for key, count in counts.items():
        yield "sessions", key, count


def _oldest(began: Iterator[Timestamp | None], now: Timestamp) -> float:
    ages = (since(then, now) for then in began)
    return max((seconds(age) for age in ages if age is not None and age > 0), default=0.0)


def _application(session: Session) -> str:
    return printable(session.identity.application)[:_MAX_NAME] or _UNNAMED


def candidates(plan: Plan, rules: Rules) -> Counter[tuple[str, str]]:
    """The candidates of each policy before limits, by its name and mode."""
    counts = Counter({(policy.name, policy.mode.value): 0 for policy in rules.enabled})
    policies = [candidate.policy for candidate in (*plan.candidates, *plan.dry_run_candidates)]
    policies += [skip.policy for skip in plan.matched_skips if skip.policy and skip.by in _LIMITS]
    counts.update((policy.name, policy.mode.value) for policy in policies)
    return counts


def lateness(
    settled: Sequence[tuple[Candidate, Outcome]], *, before: Plan | None, watched_since: Timestamp | None
) -> Iterator[float]:
    """Seconds from deadline to termination of each session; `before` is the plan of the previous cycle.

    A session that was already due when watching began, or that was skipped, was not late.
    """
    if not settled or before is None or watched_since is None:
        return
    first_sighting = SkipReason.FIRST_SIGHTING
    skipped = {skip.session.id for skip in before.matched_skips if skip.by is not first_sighting}
    for candidate, outcome in settled:
        due = _deadline(candidate)
        if outcome.result not in _ENDED or outcome.at is None or due is None or due < watched_since:
            continue
        if candidate.session.id not in skipped:
            yield max(seconds(Duration(outcome.at - due)), 0.0)


def _deadline(candidate: Candidate) -> Timestamp | None:
    match = candidate.policy.match
    needs_more_than_ages = match.blocking or match.xmin_age is not None
    return None if needs_more_than_ages else match.due(candidate.session)
