"""Cycles on a real server, with an audit log in a file."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from reaper.audit.events import OUTCOME, Event
from reaper.audit.file import FileSink
from reaper.audit.ledger import Author, Ledger
from reaper.audit.reader import read_events
from reaper.audit.sinks import Sink
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Outcome, Skip, SkipReason
from reaper.policy.rules import Policy, Rules
from reaper.policy.session import SessionId
from reaper.policy.time import Timestamp
from reaper.postgres.terminator import DryRunTerminator, GuardedTerminator
from reaper.service.clock import ClockWatch
from reaper.service.cycle import Cycle, CycleContext, Terminating, Terminators, run_cycle

from .clients import Client
from .reaping import identity
from .stage import Stage

AUTHOR: Final = Author(version="test", host="test", by="reaper", server="test", rules="digest", dry_run=False)


class Post:
    """Runs cycles on the stage, with an audit log in a file."""

    def __init__(self, stage: Stage, folder: Path, *, sink: Sink | None = None) -> None:
        self.stage = stage
        self.path = folder / "audit.jsonl"
        self.ledger = Ledger([sink or FileSink(self.path)], clock=lambda: datetime.now(UTC), run="run")
        self.memory = Memory()
        self.enforce: Terminating = stage.reaper.terminator
        self.clock = ClockWatch()
        self._cycles = 0

    def cycle(self, *policies: Policy, stopping: Callable[[], bool] = lambda: False) -> Cycle:
        """Run one cycle, with the memory of the cycles before."""
        self._cycles += 1
        station = CycleContext(
            observer=self.stage.reaper.observer,
            terminators=Terminators(enforce=self.enforce, dry_run=DryRunTerminator()),
            ledger=self.ledger,
            author=AUTHOR,
            clock=self.clock,
        )
        rules = Rules(policies=policies)
        work = run_cycle(station, str(self._cycles), rules=rules, memory=self.memory, stopping=stopping)
        cycle = self.stage.reaper.do(work)
        self.memory = cycle.remembered
        return cycle

    def sight(self) -> None:
        """Observe every session once, so that the next cycle may act."""
        for client in self.stage.sessions:
            self.stage.reaper.rest(client)
        self.memory = Memory.of(self.stage.reaper.look())

    def record(self) -> list[Event]:
        """The entries of the audit log so far; every line must be whole."""
        events = list(read_events(self.path))
        assert all(isinstance(event, Event) for event in events)
        return [event for event in events if isinstance(event, Event)]

    def outcomes(self) -> list[tuple[object, object]]:
        """Pid and outcome of every outcome in the audit log."""
        return [
            (event.fields["pid"], event.fields["outcome"]) for event in self.record() if event.name == OUTCOME
        ]


def reaped(cycle: Cycle) -> list[SessionId]:
    return [candidate.session.id for candidate in (*cycle.plan.candidates, *cycle.plan.dry_run_candidates)]


def ids(clients: Sequence[Client]) -> list[SessionId]:
    return [identity(client) for client in clients]


def spared_by(cycle: Cycle, client: Client) -> SkipReason:
    (decision,) = [v for v in cycle.plan.decisions if v.session.id == identity(client)]
    assert isinstance(decision, Skip), decision
    return decision.by


class Meddler:
    """A real terminator; something happens before each of its statements."""

    def __init__(self, terminator: GuardedTerminator, *before: Callable[[], object]) -> None:
        self._terminator = terminator
        self._before = list(before)
        self.confirm = terminator.confirm
        self.answered: list[Timestamp] = []
        """For each act, the time of the server's last answer before it."""

    async def terminate(self, candidate: Candidate, *, answered_at: Timestamp) -> Outcome:
        self.answered.append(answered_at)
        if self._before:
            self._before.pop(0)()
        return await self._terminator.terminate(candidate, answered_at=answered_at)
