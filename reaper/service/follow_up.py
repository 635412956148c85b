"""After a cycle: the outcomes of dry-run sessions, and the sessions that replace terminated ones."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from reaper.audit.ledger import Author, Ledger
from reaper.audit.sinks import AuditLogFailed
from reaper.insight.dryrun.outcomes import (
    CheckTimes,
    DryRunKey,
    DryRunOutcome,
    DryRunSession,
    ObservedOutcome,
    SessionTimes,
    outcomes_of,
    report_due,
    times_in,
    unknown,
    unused,
)
from reaper.insight.dryrun.regret import DryRun
from reaper.policy.memory import Memory
from reaper.policy.plan import Result
from reaper.policy.refill_guard import PausedGroup
from reaper.policy.session import SessionId
from reaper.policy.time import SECOND, Duration, Timestamp
from reaper.postgres.watcher import SessionWatcher
from reaper.service.cycle import Cycle
from reaper.service.refills import RefillDetector

MOST_DRY_RUNS: Final = 2_000
"""In about one megabyte; the audit log has all of them."""

MOST_WATCHED: Final = 500
"""Sessions of one server."""

_MOST_ASSESSED: Final = 5_000
_LONGEST: Final = Duration(7 * 86_400 * SECOND)
_ALLOWED_GAP: Final = Duration(60 * SECOND)
_GAP_INTERVALS: Final = 3
_ENDED_BY_US: Final = {Result.TERMINATED, Result.SIGNALLED, Result.CANCELLED, Result.UNKNOWN}

DryRuns = Mapping[tuple[str, DryRunKey], DryRun]
"""Dry runs by server and key."""


class OutcomeStore:
    """The newest dry runs of all servers that have an outcome."""

    def __init__(self, most: int = MOST_DRY_RUNS) -> None:
        self._most = most
        self._known: dict[tuple[str, DryRunKey], DryRun] = {}
        self.forgotten = 0
        """The dry runs that were removed to make room."""

    def note(self, server: str, observed: ObservedOutcome) -> None:
        """Add an outcome; it replaces an earlier one of the same dry run."""
        key, dry_run = (server, observed.watched.key), DryRun.of(observed, server)
        known = self._known.pop(key, dry_run)
        # A loop that was replaced reports at its end what it saw last, which may be older than this.
        self._known[key] = known if known.at + known.after > dry_run.at + dry_run.after else dry_run
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
            self.forgotten += 1

    def beside(self, watched: Iterable[DryRuns]) -> "KnownDryRuns":
        """The dry runs with an outcome, and those that are still watched."""
        dry_runs, open_ = self._known.copy(), 0
        for each in watched:
            dry_runs |= each
            open_ += len(each)
        return KnownDryRuns(dry_runs=dry_runs, watched=open_, forgotten=self.forgotten)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDryRuns:
    """The dry runs that are in memory at one moment."""

    dry_runs: DryRuns
    watched: int
    forgotten: int

    def newest(self) -> list[DryRun]:
        """The newest dry runs, up to the number that one request can assess."""
        return list(islice(reversed(list(self.dry_runs.values())), _MOST_ASSESSED))


@dataclass(slots=True)
class _Watched:
    """A watched session, and the time after which it was last reported as unused."""

    session: DryRunSession
    reported: Duration = Duration(0)  # noqa: RUF009 (a number)


class DryRunWatch:
    """The watched dry-run sessions of one server; it outlives a connection."""

    def __init__(self, server: str, ledger: Ledger, store: OutcomeStore, *, most: int = MOST_WATCHED) -> None:
        self._server = server
        self._ledger = ledger
        self._store = store
        self._most = most
        self._watched: dict[DryRunKey, _Watched] = {}
        self._author: Author | None = None
        self._checked = Timestamp(0)
        self._interrupted = False

    def __len__(self) -> int:
        """The number of watched sessions."""
        return len(self._watched)

    def interrupted(self) -> None:
        """Note that the connection was lost: sessions that are gone later may have ended with the server."""
        self._interrupted = True

    async def cycled(
        self, cycle: Cycle, watcher: SessionWatcher, author: Author, *, interval: Duration
    ) -> list[ObservedOutcome]:
        """Log the outcomes that this cycle shows, and watch its dry-run sessions; raises Lost.

        Return the new ones: a session that is still unused is logged again from time to time and new once.
        """
        self._author = author
        found: list[ObservedOutcome] = []
        old = self._reported_before()
        if self._watched:
            found += self._set_aside(cycle, author)
            found += await self._check(cycle, watcher, interval)
            found += self._still_unused(cycle.snapshot.at)
        else:
            self._checked = cycle.snapshot.at
        found += self._begin(cycle, author)
        return self._logged(found, old)

    def end(self) -> list[ObservedOutcome]:
        """End the watch: sessions that were unused at the last check count as unused until then."""
        old = self._reported_before()
        found = self._closed(unused(one.session, self._checked) for one in self._watched.values())
        return self._logged(found, old)

    def dry_runs(self) -> DryRuns:
        """The watched sessions, unused until the last check."""
        return {
            (self._server, key): DryRun.of(unused(one.session, self._checked), self._server)
            for key, one in self._watched.items()
        }

    def _reported_before(self) -> set[DryRunKey]:
        return {key for key, one in self._watched.items() if one.reported}

    def _set_aside(self, cycle: Cycle, author: Author) -> list[ObservedOutcome]:
        """Stop watching sessions: the rules are new, the clock jumped, or a policy acted on them."""
        now = cycle.snapshot.at
        earlier = [one.session for one in self._watched.values() if one.session.rules != author.rules]
        ended = self._closed(unused(one, self._checked) for one in earlier)
        if cycle.clock_step is not None:
            why = "the server's clock was set"
            return ended + self._closed(unknown(one.session, now, why) for one in self._watched.values())
        ours = {
            candidate.session.id for candidate, outcome in cycle.settled if outcome.result in _ENDED_BY_US
        }
        why = "a policy that enforces has acted on it"
        acted_on = [one.session for one in self._watched.values() if one.session.id in ours]
        return ended + self._closed(unknown(one, now, why) for one in acted_on)

    async def _check(
        self, cycle: Cycle, watcher: SessionWatcher, interval: Duration
    ) -> list[ObservedOutcome]:
        at, before = cycle.snapshot.at, self._checked
        longest = Duration(max(_GAP_INTERVALS * interval, _ALLOWED_GAP))
        # After a lost connection no gap is short enough: a restart of the server ends sessions as well.
        check = CheckTimes(at, before, Duration(-1) if self._interrupted else longest)
        watched = [one.session for one in self._watched.values()]
        seen: Mapping[SessionId, SessionTimes | None] = times_in(cycle.snapshot, watched)
        found = outcomes_of(watched, seen, check)
        left_out = {one.id for one in watched} - seen.keys()
        read = await watcher.look(left_out) if left_out else None
        if read:
            found += outcomes_of(watched, read.sessions, check._replace(at=read.at))
        if read or not left_out:
            self._checked, self._interrupted = at, False
        return self._closed(found)

    def _still_unused(self, now: Timestamp) -> list[ObservedOutcome]:
        """Sessions to report as still unused; after a week they are no longer watched."""
        found = []
        for one in [each for each in self._watched.values() if report_due(each.session, now, each.reported)]:
            found.append(unused(one.session, now))
            one.reported = found[-1].after
            if one.reported >= _LONGEST:
                del self._watched[one.session.key]
        return found

    def _begin(self, cycle: Cycle, author: Author) -> list[ObservedOutcome]:
        unwatched = []
        for intent, candidate in cycle.dry_run_before:
            one = DryRunSession(
                intent=intent, candidate=candidate, at=cycle.snapshot.at, cycle=cycle.name, rules=author.rules
            )
            if one.key in self._watched:
                continue  # again after a lost connection: still the same dry run
            if len(self._watched) < self._most:
                self._watched[one.key] = _Watched(one)
            else:
                why = f"not watched: {self._most} are watched already"
                unwatched.append(unknown(one, one.at, why))
        return unwatched

    def _closed(self, outcomes: Iterable[ObservedOutcome]) -> list[ObservedOutcome]:
        found = list(outcomes)
        for one in found:
            self._watched.pop(one.watched.key, None)
        return found

    def _logged(self, found: list[ObservedOutcome], old: set[DryRunKey]) -> list[ObservedOutcome]:
        """Log these outcomes, and return those that are new."""
        for one in found:
            self._store.note(self._server, one)
        if self._author and found:
            # The next cycle with an act meets the failure as well, and reports it.
            with suppress(AuditLogFailed):
                self._ledger.log_dry_run_outcomes(self._author, found)
        return [one for one in found if one.outcome is not DryRunOutcome.UNUSED or one.watched.key not in old]


class FollowUpResult(NamedTuple):
    """The new outcomes and the newly paused groups since the last cycle."""

    outcomes: Sequence[ObservedOutcome]
    paused: Sequence[PausedGroup]


class FollowUp:
    """Observes and logs what cycles have led to at one server; it outlives a connection."""

    def __init__(
        self, server: str, ledger: Ledger, store: OutcomeStore, *, before: "FollowUp | None" = None
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._store = store
        # The loop that is replaced still ends its own watch when this one begins, maybe at another server:
        # neither can observe the sessions of the other.
        self.watch = DryRunWatch(server, ledger, store)
        self.refills: RefillDetector = before.refills if before else RefillDetector()

    def next(self) -> "FollowUp":
        """The follow-up of the loop that replaces this one."""
        return FollowUp(self._server, self._ledger, self._store, before=self)

    def reminded(self, memory: Memory) -> Memory:
        """The memory of the next cycle, with the paused groups."""
        return memory.with_paused(self.refills.paused)

    async def cycled(
        self, cycle: Cycle, watcher: SessionWatcher, author: Author, *, interval: Duration
    ) -> FollowUpResult:
        """Observe and log; raises Lost. Without dry runs and recent terminations, no statement is sent."""
        paused = await self.refills.cycled(cycle, watcher)
        # The next cycle with an act meets the failure as well, and reports it.
        with suppress(AuditLogFailed):
            self._ledger.log_refill_guard(author, cycle.name, paused)
        return FollowUpResult(await self.watch.cycled(cycle, watcher, author, interval=interval), paused)
