"""The numbers of one snapshot and its plan; pure, and bounded whatever names clients choose."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from reaper.policy.plan import Outcome, Plan, Reap, Result, Spare, Spared
from reaper.policy.protections import BUILT_IN
from reaper.policy.rules import Rules
from reaper.policy.session import IDLE, Session, SessionId, Snapshot
from reaper.policy.text import plain
from reaper.policy.time import Instant, Span, seconds, since
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

_LIMITS: Final = {
    Spared.KEEP: "keep",
    Spared.CAP: "max_sessions",
    Spared.BRAKE: "safety_limit",
    Spared.FIRST_SIGHTING: "first-sighting",
    Spared.CHURN: "refill_guard",
    Spared.PACE: "max_per_cycle",
    Spared.IN_VAIN: "in-vain",
}
"""Reasons to skip a session that a policy would terminate otherwise."""
_REASONS: Final = {each: each.value for each in (Spared.ALLOWLIST, Spared.WHEN, Spared.DURING)} | _LIMITS
SKIP_REASONS: Final = ("protect", *BUILT_IN, *_REASONS.values())
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
    skipped = Counter(dict.fromkeys(SKIP_REASONS, 0))
    skipped.update(map(_skip_reason, plan.matched_spares))
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


def _oldest(began: Iterator[Instant | None], now: Instant) -> float:
    ages = (since(then, now) for then in began)
    return max((seconds(age) for age in ages if age is not None and age > 0), default=0.0)


def _application(session: Session) -> str:
    return plain(session.identity.application)[:_MAX_NAME] or _UNNAMED


def candidates(plan: Plan, rules: Rules) -> Counter[tuple[str, str]]:
    """The candidates of each policy before limits, by its name and mode."""
    counts = Counter({(policy.name, policy.mode.value): 0 for policy in rules.awake})
    policies = [reap.policy for reap in (*plan.reaps, *plan.rehearsals)]
    policies += [spare.policy for spare in plan.matched_spares if spare.policy and spare.by in _LIMITS]
    counts.update((policy.name, policy.mode.value) for policy in policies)
    return counts


def outcome_label(result: Result) -> str:
    """The outcome of a session in metrics and on pages."""
    return "dry-run" if result is Result.REHEARSED else result.value


def _skip_reason(spare: Spare) -> str:
    return spare.protection or _REASONS.get(spare.by, spare.by.value)


def lateness(
    settled: Iterable[tuple[Reap, Outcome]], *, before: Plan | None, watched_since: Instant | None
) -> Iterator[float]:
    """Seconds from deadline to termination of each session; `before` is the plan of the previous cycle.

    A session that was already due when watching began, or that was skipped, was not late.
    """
    if before is None or watched_since is None:
        return
    skipped: frozenset[SessionId] | None = None
    for reap, outcome in settled:
        due = _deadline(reap)
        if outcome.result not in _ENDED or outcome.at is None or due is None or due < watched_since:
            continue
        skipped = _skipped(before) if skipped is None else skipped
        if reap.session.id not in skipped:
            yield max(seconds(Span(outcome.at - due)), 0.0)


def _deadline(reap: Reap) -> Instant | None:
    match = reap.policy.match
    needs_more_than_ages = match.blocking or match.holds_back_vacuum is not None
    return None if needs_more_than_ages else match.due(reap.session)


def _skipped(plan: Plan) -> frozenset[SessionId]:
    return frozenset(
        spare.session.id for spare in plan.matched_spares if spare.by is not Spared.FIRST_SIGHTING
    )
