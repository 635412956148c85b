"""What one look at a server comes to in numbers; pure, and bounded whatever clients call themselves."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.dryrun.outcomes import Fate
from reaper.policy.plan import Plan, Result, Spare, Spared
from reaper.policy.protections import BUILT_IN
from reaper.policy.rules import Action, Mode, Policy, Rules
from reaper.policy.session import IDLE, Session, Snapshot
from reaper.policy.text import plain
from reaper.policy.time import Instant, seconds, since

MOST_NAMES: Final = 100
KEPT_SECONDS: Final = 86_400.0
"""A name that was not among the largest for a day gives its place away."""


class Applications:
    """The application names of the last day, up to a maximum."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def admit(self, names: Sequence[str], now: float) -> Collection[str]:
        """Those of these names that are shown already, or for which there is room."""
        self._shown = {name: last for name, last in self._shown.items() if now - last < KEPT_SECONDS}
        for name in names:
            if name in self._shown or len(self._shown) < MOST_NAMES:
                self._shown[name] = now
        return [name for name in names if name in self._shown]


CYCLE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LATENESS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
FAILURES: Final = ("away", "refused", "cycle", "record")


class Histogram:
    """How often a number fell between two bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Each bound with the count of all that lie at or below it."""
        below = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            below += count
            yield bound, below


@dataclass(slots=True)
class ServerCounts:
    """All that was counted at one server; it outlives a reload, and goes when the server goes."""

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By policy, mode and outcome."""
    brakes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By policy and mode."""
    fates: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By policy, mode and fate; only of policies that were rehearsed."""
    churn: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By policy and mode; only of policies that act."""
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FAILURES, 0)))
    clock_steps: int = 0
    applications: Applications = field(default_factory=Applications)
    """Those that have a label of their own."""
    cycles: Histogram = field(default_factory=lambda: Histogram(CYCLE_SECONDS))
    lateness: Histogram = field(default_factory=lambda: Histogram(LATENESS_SECONDS))

    def expect(self, rules: Rules) -> None:
        """Begin at zero with what these policies can come to."""
        for policy in rules.awake:
            self.brakes[policy.name, policy.mode.value] += 0
            for result in _possible(policy):
                self.outcomes[policy.name, policy.mode.value, result.value] += 0
            if policy.mode is Mode.ENFORCE:
                self.churn[policy.name, policy.mode.value] += 0
            if policy.mode is Mode.DRY_RUN:
                for fate in Fate:
                    self.fates[policy.name, policy.mode.value, fate.value] += 0


def _possible(policy: Policy) -> tuple[Result, ...]:
    if policy.mode is Mode.DRY_RUN:
        return (Result.REHEARSED,)
    done = Result.CANCELLED if policy.action is Action.CANCEL else Result.TERMINATED
    return (done, *_OTHERWISE)


_OTHERWISE: Final = (
    Result.SIGNALLED,
    Result.WOKE,
    Result.GONE,
    Result.DENIED,
    Result.UNKNOWN,
    Result.WITHDRAWN,
)


TOP_APPLICATIONS: Final = 10
"""So many applications have a label of their own; the rest, whatever they call themselves, is `other`."""

OTHER: Final = "other"
UNNAMED: Final = "(unnamed)"

_RESTRAINTS: Final = (
    Spared.KEEP,
    Spared.CAP,
    Spared.BRAKE,
    Spared.FIRST_SIGHTING,
    Spared.CHURN,
    Spared.PACE,
    Spared.IN_VAIN,
)
SPARED_BY: Final = (
    "protect",
    *BUILT_IN,
    *(by.value for by in (Spared.ALLOWLIST, Spared.WHEN, Spared.DURING, *_RESTRAINTS)),
)
"""By what a session that a policy matches can be spared: a protection, an allowlist, a rest, a restraint."""

_LONGEST_NAME: Final = 100
"""Characters; names that differ behind them only are one."""

Admit = Callable[[Sequence[str]], Collection[str]]
"""Of the largest applications, those that may have a label of their own."""

Reading = tuple[str, tuple[str, ...], float]
"""A metric without its prefix, its labels after the server's, and its value."""


def readings(snapshot: Snapshot, plan: Plan, rules: Rules) -> Iterator[Reading]:
    """Every gauge that a cycle settles."""
    slots = snapshot.slots
    yield "slots_max", (), slots.total
    yield "slots_reserved", (), slots.reserved
    yield "slots_used", (), slots.used
    yield "unreadable_sessions", (), snapshot.unreadable
    for labels, count in candidates(plan, rules).items():
        yield "candidates", labels, count
    for by, count in _spared(plan).items():
        yield "spared", (by,), count


def census(snapshot: Snapshot, *, admit: Admit = lambda names: names) -> Iterator[Reading]:
    """Every gauge that wants everybody to be seen."""
    idle = (session.state_change for session in snapshot.sessions if session.state == IDLE)
    yield "oldest_idle_seconds", (), _oldest(idle, snapshot.at)
    yield "oldest_transaction_seconds", (), _oldest((s.xact_start for s in snapshot.sessions), snapshot.at)
    for labels, count in _by_state_and_application(snapshot, admit).items():
        yield "sessions", labels, count


def _oldest(began: Iterator[Instant | None], now: Instant) -> float:
    ages = (since(then, now) for then in began)
    return max((seconds(age) for age in ages if age is not None and age > 0), default=0.0)


def _by_state_and_application(snapshot: Snapshot, admit: Admit) -> Counter[tuple[str, str]]:
    named = Counter(map(_application, snapshot.sessions))
    # By name where counts are equal: the same names at every look, and not whoever came first.
    ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    top = admit([name for name, _ in ranked[:TOP_APPLICATIONS]])
    counts = Counter[tuple[str, str]]()
    for session in snapshot.sessions:
        name = _application(session)
        counts[session.state or "unknown", name if name in top else OTHER] += 1
    return counts


def _application(session: Session) -> str:
    return plain(session.identity.application)[:_LONGEST_NAME] or UNNAMED


def candidates(plan: Plan, rules: Rules) -> Counter[tuple[str, str]]:
    """How many sessions each policy condemns before restraints, by its name and mode."""
    counts = Counter({(policy.name, policy.mode.value): 0 for policy in rules.awake})
    condemned = [reap.policy for reap in (*plan.reaps, *plan.rehearsals)]
    condemned += [spare.policy for spare in plan.matched_spares if spare.policy and spare.by in _RESTRAINTS]
    counts.update((policy.name, policy.mode.value) for policy in condemned)
    return counts


def _spared(plan: Plan) -> Counter[str]:
    counts = Counter(dict.fromkeys(SPARED_BY, 0))
    counts.update(_spared_by(spare) for spare in plan.matched_spares)
    return counts


def _spared_by(spare: Spare) -> str:
    return spare.protection or spare.by.value
