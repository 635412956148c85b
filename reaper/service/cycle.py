"""One cycle: observe, decide, intend, terminate, settle."""

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
    """Looks at a server."""

    async def observe(self, rules: Rules, *, ahead: Span | None = None) -> Snapshot:
        """Take a snapshot, with the facts that these rules need; `ahead` lets it leave out the young."""


class Terminating(Protocol):
    """Acts on a server, or only says that it would."""

    async def terminate(self, reap: Reap, *, answered_at: Instant) -> Outcome:
        """Check the session again and signal it, soon after the server's last answer."""

    def confirm(self, reaps: Sequence[Reap]) -> AsyncIterator[Sequence[tuple[Reap, Outcome]]]:
        """Yield the signalled sessions as they exit, at last those that are still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """Who acts for each mode: under --dry-run both only rehearse, and all else stays the same."""

    enforce: Terminating
    rehearse: Terminating

    def of(self, reap: Reap) -> Terminating:
        """Who is in charge of this reap."""
        return self.enforce if reap.mode is Mode.ENFORCE else self.rehearse


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """What a cycle saw, decided and did."""

    name: str
    snapshot: Snapshot
    plan: Plan
    settled: tuple[tuple[Reap, Outcome], ...]
    rehearsed: tuple[tuple[str, Reap], ...] = ()
    """Whom it would have acted on, by the intents' ids."""
    memory: Memory
    """What it was judged with."""
    clock_step: Span | None = None
    audit_log_failed: AuditLogFailed | None = None

    @property
    def results(self) -> Counter[Result]:
        """How often each outcome came about."""
        return Counter(outcome.result for _, outcome in self.settled)

    @property
    def remembered(self) -> Memory:
        """What the next cycle is to know."""
        return self.memory.after(self.snapshot, self.settled, self.plan.brakes)

    @property
    def new_brakes(self) -> tuple[BrakeTrip, ...]:
        """The brakes that have tripped now, and not already in the cycle before."""
        return new_brakes(self.plan, self.memory)

    @property
    def left_undone(self) -> bool:
        """Whether something that was due was not done: a brake, a refusal, an uncertain end."""
        return (
            bool(self.plan.brakes)
            or bool(self.audit_log_failed)
            or any(outcome.result in _UNDONE for _, outcome in self.settled)
        )


_UNDONE: Final = {Result.SIGNALLED, Result.DENIED, Result.UNKNOWN, Result.WITHDRAWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """What a cycle works with at one server, for as long as one connection lasts."""

    observer: Observing
    hands: Hands
    ledger: Ledger
    author: Author
    clock: ClockWatch
    ahead: Span | None = None
    """Whoever can fall due within this time is looked at in each cycle; None is everybody."""


async def run_cycle(
    station: Station, name: str, *, rules: Rules, memory: Memory, stopping: Callable[[], bool]
) -> Cycle:
    """Go once through the five steps; AuditLogFailed is raised before the first signal or not at all."""
    station.clock.begin()
    snapshot = await station.observer.observe(rules, ahead=station.ahead)
    clock_step = station.clock.step(snapshot.at)
    if clock_step is not None:
        memory = Memory()  # everybody is seen for the first time
    if station.clock.counted_from is not None:
        snapshot = snapshot.counted_from(station.clock.counted_from)
    plan = decide(snapshot=snapshot, rules=rules, memory=memory)
    station.ledger.log_safety_limit(station.author, name, snapshot, new_brakes(plan, memory))
    intents = station.ledger.intend(station.author, name, snapshot, (*plan.reaps, *plan.rehearsals))
    book = await _carry_out(intents, station, stopping, answered_at=snapshot.at)
    return Cycle(
        name=name,
        snapshot=snapshot,
        plan=plan,
        settled=tuple(book.settled),
        rehearsed=tuple(book.rehearsed),
        memory=memory,
        clock_step=clock_step,
        audit_log_failed=book.failure,
    )


def new_brakes(plan: Plan, memory: Memory) -> tuple[BrakeTrip, ...]:
    """Those of policies whose brake did not hold already."""
    return tuple(trip for trip in plan.brakes if trip.policy.name not in memory.braked)


async def _carry_out(
    intents: Sequence[Intent], station: Station, stopping: Callable[[], bool], *, answered_at: Instant
) -> "_Book":
    """Terminate one session after the other, then confirm; each outcome is logged as soon as it is known."""
    book = _Book(station.ledger)
    sent: dict[SessionId, tuple[Intent, Outcome]] = {}
    for intent in intents:
        reap = intent.reap
        # Checked before each: a stop or a full disk must not wait for the rest of the plan.
        outcome = _STOPPING if stopping() else book.veto
        if outcome is None:
            outcome = await station.hands.of(reap).terminate(reap, answered_at=answered_at)
        answered_at = max(answered_at, outcome.at or answered_at)
        if outcome.result is Result.SIGNALLED:
            sent[reap.session.id] = intent, outcome
        else:
            book.settle([(intent, outcome)])
    async for ends in station.hands.enforce.confirm([intent.reap for intent, _ in sent.values()]):
        told = [(*sent[reap.session.id], end) for reap, end in ends]
        book.settle([(intent, replace(end, act=signal.act)) for intent, signal, end in told])
    book.flush()
    return book


class _Book:
    """The outcomes of a cycle; once one cannot be written, nobody else is touched."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.settled: list[tuple[Reap, Outcome]] = []
        self.rehearsed: list[tuple[str, Reap]] = []
        self.failure: AuditLogFailed | None = None

    @property
    def veto(self) -> Outcome | None:
        return _UNRECORDED if self.failure else None

    def settle(self, ends: Sequence[tuple[Intent, Outcome]]) -> None:
        if not ends:
            return
        self.settled += [(intent.reap, outcome) for intent, outcome in ends]
        self.rehearsed += [(each.id, each.reap) for each, end in ends if end.result is Result.REHEARSED]
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
_UNRECORDED: Final = Outcome(result=Result.WITHDRAWN, detail="the record could not be written")
