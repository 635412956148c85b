"""One cycle: observe, decide, log the intents, terminate, log the outcomes."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from reaper.audit.ledger import Author, Intent, Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Outcome, Plan, Result, SafetyLimitTrip
from reaper.policy.rules import Mode, Rules
from reaper.policy.session import SessionId, Snapshot
from reaper.policy.time import Duration, Timestamp
from reaper.service.clock import ClockWatch


class Observing(Protocol):
    """Takes snapshots of a server."""

    async def observe(self, rules: Rules, *, ahead: Duration | None = None) -> Snapshot:
        """Take a snapshot, with the facts that these rules need; `ahead` allows a prefilter."""


class Terminating(Protocol):
    """Terminates sessions, or in a dry run only returns what it would do."""

    async def terminate(self, candidate: Candidate, *, answered_at: Timestamp) -> Outcome:
        """Check the session again and signal it, soon after the server's last answer."""

    def confirm(self, candidates: Sequence[Candidate]) -> AsyncIterator[Sequence[tuple[Candidate, Outcome]]]:
        """Yield the signalled sessions as they exit, at last those that are still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminators:
    """The terminator for each mode; with --dry-run both are dry-run terminators and nothing else differs."""

    enforce: Terminating
    dry_run: Terminating

    def of(self, candidate: Candidate) -> Terminating:
        """The terminator for this policy's mode."""
        return self.enforce if candidate.mode is Mode.ENFORCE else self.dry_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """The snapshot, the plan and the outcomes of one cycle."""

    name: str
    snapshot: Snapshot
    plan: Plan
    settled: tuple[tuple[Candidate, Outcome], ...]
    dry_run_before: tuple[tuple[str, Candidate], ...] = ()
    """Dry-run intents, each with its id."""
    memory: Memory
    """The memory that the plan was decided with."""
    clock_step: Duration | None = None
    audit_log_failed: AuditLogFailed | None = None

    @property
    def results(self) -> Counter[Result]:
        """How often each outcome occurred."""
        return Counter(outcome.result for _, outcome in self.settled)

    @property
    def remembered(self) -> Memory:
        """The memory for the next cycle."""
        return self.memory.after(self.snapshot, self.settled, self.plan.trips)

    @property
    def new_trips(self) -> tuple[SafetyLimitTrip, ...]:
        """The safety limits that were exceeded in this cycle and not in the one before."""
        return new_trips(self.plan, self.memory)

    @property
    def left_undone(self) -> bool:
        """Return True if anything due was not done: a safety limit, a denial, an unknown outcome."""
        return (
            bool(self.plan.trips)
            or bool(self.audit_log_failed)
            or any(outcome.result in _UNDONE for _, outcome in self.settled)
        )


_UNDONE: Final = {Result.SIGNALLED, Result.DENIED, Result.UNKNOWN, Result.WITHDRAWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleContext:
    """Everything a cycle needs at one server, for the lifetime of one connection."""

    observer: Observing
    terminators: Terminators
    ledger: Ledger
    author: Author
    clock: ClockWatch
    ahead: Duration | None = None
    """The snapshot holds every session that can fall due within this time; None: all sessions."""


async def run_cycle(
    context: CycleContext, name: str, *, rules: Rules, memory: Memory, stopping: Callable[[], bool]
) -> Cycle:
    """Run the five steps once; AuditLogFailed is raised before the first signal or not at all."""
    context.clock.begin()
    snapshot = await context.observer.observe(rules, ahead=context.ahead)
    clock_step = context.clock.step(snapshot.at)
    if clock_step is not None:
        memory = Memory()  # ages are unreliable: every session counts as seen for the first time
    if context.clock.counted_from is not None:
        snapshot = snapshot.counted_from(context.clock.counted_from)
    plan = decide(snapshot=snapshot, rules=rules, memory=memory)
    context.ledger.log_safety_limit(context.author, name, snapshot, new_trips(plan, memory))
    intents = context.ledger.intend(
        context.author, name, snapshot, (*plan.candidates, *plan.dry_run_candidates)
    )
    outcomes = await _carry_out(intents, context, stopping, answered_at=snapshot.at)
    return Cycle(
        name=name,
        snapshot=snapshot,
        plan=plan,
        settled=tuple(outcomes.settled),
        dry_run_before=tuple(outcomes.dry_runs),
        memory=memory,
        clock_step=clock_step,
        audit_log_failed=outcomes.failure,
    )


def new_trips(plan: Plan, memory: Memory) -> tuple[SafetyLimitTrip, ...]:
    """The safety limits that were not already exceeded in the cycle before."""
    return tuple(trip for trip in plan.trips if trip.policy.name not in memory.tripped)


async def _carry_out(
    intents: Sequence[Intent], context: CycleContext, stopping: Callable[[], bool], *, answered_at: Timestamp
) -> "_Outcomes":
    """Terminate one session after the other, then confirm; each outcome is logged as soon as it is known."""
    outcomes = _Outcomes(context.ledger)
    sent: dict[SessionId, tuple[Intent, Outcome]] = {}
    for intent in intents:
        candidate = intent.candidate
        # Checked before each: a stop or a full disk must not wait for the rest of the plan.
        outcome = _STOPPING if stopping() else outcomes.veto
        if outcome is None:
            outcome = await context.terminators.of(candidate).terminate(candidate, answered_at=answered_at)
        answered_at = max(answered_at, outcome.at or answered_at)
        if outcome.result is Result.SIGNALLED:
            sent[candidate.session.id] = intent, outcome
        else:
            outcomes.settle([(intent, outcome)])
    async for ends in context.terminators.enforce.confirm([intent.candidate for intent, _ in sent.values()]):
        ended = [(*sent[candidate.session.id], end) for candidate, end in ends]
        outcomes.settle([(intent, replace(end, act=signal.act)) for intent, signal, end in ended])
    outcomes.flush()
    return outcomes


class _Outcomes:
    """The outcomes of a cycle; after one that cannot be written, no other session is terminated."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.settled: list[tuple[Candidate, Outcome]] = []
        self.dry_runs: list[tuple[str, Candidate]] = []
        self.failure: AuditLogFailed | None = None

    @property
    def veto(self) -> Outcome | None:
        return _UNRECORDED if self.failure else None

    def settle(self, ends: Sequence[tuple[Intent, Outcome]]) -> None:
        if not ends:
            return
        self.settled += [(intent.candidate, outcome) for intent, outcome in ends]
        self.dry_runs += [(each.id, each.candidate) for each, end in ends if end.result is Result.DRY_RUN]
        self._try(lambda: self._ledger.log_outcomes(ends))

    def flush(self) -> None:
        self._try(self._ledger.flush)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except AuditLogFailed as failure:
            self.failure = self.failure or failure


_STOPPING: Final = Outcome(
    result=Result.WITHDRAWN, detail="the reaper was stopping, or its policies have changed"
)
_UNRECORDED: Final = Outcome(result=Result.WITHDRAWN, detail="the audit log could not be written")
