"""What one look at a server comes to in numbers; pure, and bounded whatever clients call themselves."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from reaper.policy.plan import Plan
from reaper.policy.protections import BUILT_IN
from reaper.policy.rules import Rules
from reaper.policy.session import IDLE, Session, Snapshot
from reaper.policy.spans import Instant, seconds, since
from reaper.policy.verdict import Spare, Spared
from reaper.telemetry.plain import plain

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
