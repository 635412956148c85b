"""One cycle: observe, decide, log the intents, terminate, log the outcomes."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from reaper.audit.ledger import Author, Intent, Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import BrakeTrip, Outcome, Plan, Reap, Result
from reaper.policy.rules import Mode, Rules
from reaper.policy.session import SessionId, Snapshot
from reaper.policy.time import Instant, Span
from reaper.service.clock import ClockWatch


class Observing(Protocol):
    """Takes snapshots of a server."""

    async def observe(self, rules: Rules, *, ahead: Span | None = None) -> Snapshot:
        """Take a snapshot, with the facts that these rules need; `ahead` allows a prefilter."""


class Terminating(Protocol):
    """Terminates sessions, or in a dry run only returns what it would do."""

    async def terminate(self, reap: Reap, *, answered_at: Instant) -> Outcome:
        """Check the session again and signal it, soon after the server's last answer."""

    def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[Sequence[tuple[Reap, Outcome]]]:
        """Yield the signalled sessions as they exit, at last those that are still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminators:
    """The terminator for each mode; with --dry-run both are dry-run terminators and nothing else differs."""

    enforce: Terminating
    dry_run: Terminating

    def of(self, reap: Reap) -> Terminating:
        """The terminator for this policy's mode."""
        return self.enforce if reap.mode is Mode.ENFORCE else self.dry_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """The snapshot, the plan and the outcomes of one cycle."""

    name: str
    snapshot: Snapshot
    plan: Plan
    settled: tuple[tuple[Reap, Outcome], ...]
    rehearsed: tuple[tuple[str, Reap], ...] = ()
    """Dry-run intents, each with its id."""
    memory: Memory
    """The memory that the plan was decided with."""
    clock_step: Span | None = None
    audit_log_failed: AuditLogFailed | None = None

    @property
    def results(self) -> Counter[Result]:
        """How often each outcome occurred."""
        return Counter(outcome.result for _, outcome in self.settled)

    @property
    def remembered(self) -> Memory:
        """The memory for the next cycle."""
        return self.memory.after(self.snapshot, self.settled, self.plan.brakes)

    @property
    def new_brakes(self) -> tuple[BrakeTrip, ...]:
        """The safety limits that were exceeded in this cycle and not in the one before."""
        return new_brakes(self.plan, self.memory)

    @property
    def left_undone(self) -> bool:
        """Return True if anything due was not done: a safety limit, a denial, an unknown outcome."""
        return (
            bool(self.plan.brakes)
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
    ahead: Span | None = None
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
    context.ledger.log_safety_limit(context.author, name, snapshot, new_brakes(plan, memory))
    intents = context.ledger.intend(context.author, name, snapshot, (*plan.reaps, *plan.rehearsals))
    outcomes = await _carry_out(intents, context, stopping, answered_at=snapshot.at)
    return Cycle(
        name=name,
        snapshot=snapshot,
        plan=plan,
        settled=tuple(outcomes.settled),
        rehearsed=tuple(outcomes.dry_runs),
        memory=memory,
        clock_step=clock_step,
        audit_log_failed=outcomes.failure,
    )


def new_brakes(plan: Plan, memory: Memory) -> tuple[BrakeTrip, ...]:
    """The safety limits that were not already exceeded in the cycle before."""
    return tuple(trip for trip in plan.brakes if trip.policy.name not in memory.braked)


async def _carry_out(
    intents: Sequence[Intent], context: CycleContext, stopping: Callable[[], bool], *, answered_at: Instant
) -> "_Outcomes":
    """Terminate one session after the other, then confirm; each outcome is logged as soon as it is known."""
    outcomes = _Outcomes(context.ledger)
    sent: dict[SessionId, tuple[Intent, Outcome]] = {}
    for intent in intents:
        reap = intent.reap
        # Checked before each: a stop or a full disk must not wait for the rest of the plan.
        outcome = _STOPPING if stopping() else outcomes.veto
        if outcome is None:
            outcome = await context.terminators.of(reap).terminate(reap, answered_at=answered_at)
        answered_at = max(answered_at, outcome.at or answered_at)
        if outcome.result is Result.SIGNALLED:
            sent[reap.session.id] = intent, outcome
        else:
            outcomes.settle([(intent, outcome)])
    async for ends in context.terminators.enforce.confirm([intent.reap for intent, _ in sent.values()]):
        ended = [(*sent[reap.session.id], end) for reap, end in ends]
        outcomes.settle([(intent, replace(end, act=signal.act)) for intent, signal, end in ended])
    outcomes.flush()
    return outcomes


class _Outcomes:
    """The outcomes of a cycle; after one that cannot be written, no other session is terminated."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.settled: list[tuple[Reap, Outcome]] = []
        self.dry_runs: list[tuple[str, Reap]] = []
        self.failure: AuditLogFailed | None = None

    @property
    def veto(self) -> Outcome | None:
        return _UNRECORDED if self.failure else None

    def settle(self, ends: Sequence[tuple[Intent, Outcome]]) -> None:
        if not ends:
            return
        self.settled += [(intent.reap, outcome) for intent, outcome in ends]
        self.dry_runs += [(each.id, each.reap) for each, end in ends if end.result is Result.REHEARSED]
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
