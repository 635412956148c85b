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
        """Yield the signalled sessions as they exit, at last those that are still there.

        The caller finds its own candidate by the session id: pid and backend_start.
        """


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
        """The number of sessions with each outcome."""
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
        return bool(self.plan.trips or self.audit_log_failed or _UNDONE & self.results.keys())


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
    snapshot, clock_step = await _observe(context, rules)
    if clock_step is not None:
        memory = Memory()  # ages are unreliable: every session counts as seen for the first time
    plan = decide(snapshot=snapshot, rules=rules, memory=memory)
    intents = _log_intents(context, name, snapshot, plan, memory)
    # From here on the intents are on disk: a crash leaves intents without an outcome, never the reverse.
    outcomes = await _terminate(intents, context, stopping, answered_at=snapshot.at)
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


async def _observe(context: CycleContext, rules: Rules) -> tuple[Snapshot, Duration | None]:
    """Return a snapshot, and by how much the server's clock has jumped since the one before."""
    clock = context.clock
    clock.begin()
    snapshot = await context.observer.observe(rules, ahead=context.ahead)
    clock_step = clock.step(snapshot.at)
    # After a jump, ages from before it are wrong for as long as their sessions exist.
    return snapshot if clock.counted_from is None else snapshot.counted_from(clock.counted_from), clock_step


def _log_intents(
    context: CycleContext, name: str, snapshot: Snapshot, plan: Plan, memory: Memory
) -> list[Intent]:
    """Write durably what is about to happen, and which safety limits prevent more."""
    ledger, author = context.ledger, context.author
    ledger.log_safety_limit(author, name, snapshot, new_trips(plan, memory))
    return ledger.intend(author, name, snapshot, (*plan.candidates, *plan.dry_run_candidates))


def new_trips(plan: Plan, memory: Memory) -> tuple[SafetyLimitTrip, ...]:
    """Return the safety limits that were not already exceeded in the cycle before."""
    return tuple(trip for trip in plan.trips if trip.policy.name not in memory.tripped)


async def _terminate(
    intents: Sequence[Intent], context: CycleContext, stopping: Callable[[], bool], *, answered_at: Timestamp
) -> "_Outcomes":
    """Terminate one session after the other, then confirm; each outcome is logged as soon as it is known."""
    outcomes = _Outcomes(context.ledger)
    sent: dict[SessionId, tuple[Intent, Outcome]] = {}
    for intent in intents:
        candidate = intent.candidate
        # Checked before each: a stop or a full disk must not wait for the rest of the plan.
        outcome = _STOPPING if stopping() else outcomes.withdrawn
        if outcome is None:
            outcome = await context.terminators.of(candidate).terminate(candidate, answered_at=answered_at)
        answered_at = max(answered_at, outcome.at or answered_at)
        if outcome.result is Result.SIGNALLED:
            sent[candidate.session.id] = intent, outcome
        else:
            outcomes.log([(intent, outcome)])
    # A signal only requests the exit: the outcome is what the server shows afterwards.
    async for ends in context.terminators.enforce.confirm([intent.candidate for intent, _ in sent.values()]):
        ended = [(*sent[candidate.session.id], end) for candidate, end in ends]
        outcomes.log([(intent, replace(end, act=signal.act)) for intent, signal, end in ended])
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
    def withdrawn(self) -> Outcome | None:
        """The outcome of every further intent after a failure; None if there was none."""
        return _NOT_LOGGED if self.failure else None

    def log(self, outcomes: Sequence[tuple[Intent, Outcome]]) -> None:
        if not outcomes:
            return
        self.settled += [(intent.candidate, outcome) for intent, outcome in outcomes]
        self.dry_runs += [(each.id, each.candidate) for each, end in outcomes if end.result is Result.DRY_RUN]
        self._try(lambda: self._ledger.log_outcomes(outcomes))

    def flush(self) -> None:
        self._try(self._ledger.flush)

    def _try(self, write: Callable[[], None]) -> None:
        # Not raised: signals have been sent, and the remaining outcomes must still be collected.
        try:
            write()
        except AuditLogFailed as failure:
            self.failure = self.failure or failure


_STOPPING: Final = Outcome(
    result=Result.WITHDRAWN, detail="the reaper was stopping, or its policies have changed"
)
_NOT_LOGGED: Final = Outcome(result=Result.WITHDRAWN, detail="the audit log could not be written")
