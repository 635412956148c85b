"""After a cycle: the outcomes of dry-run sessions, and the sessions that replace terminated ones."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Protocol

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
from reaper.postgres.watcher import SessionWatcher, WatchedSessions
from reaper.service.cycle import Cycle
from reaper.service.refills import RefillDetector

MOST_DRY_RUNS: Final = 2_000
"""In about one megabyte; the record has all of them."""

_MOST_ASKED: Final = 5_000

Acts = Mapping[tuple[str, DryRunKey], DryRun]


class OutcomeStore:
    """The newest acts of all servers that something has become of."""

    def __init__(self, most: int = MOST_DRY_RUNS) -> None:
        self._most = most
        self._known: dict[tuple[str, DryRunKey], DryRun] = {}
        self.forgotten = 0
        """How many acts there was no room for any more."""

    def note(self, server: str, observed: ObservedOutcome) -> None:
        """Something has become of one; what is told of it later takes the place of this."""
        key, dry_run = (server, observed.watched.key), DryRun.of(observed, server)
        known = self._known.pop(key, dry_run)
        # A loop whose place was taken tells at its end how things stood before.
        self._known[key] = known if known.at + known.after > dry_run.at + dry_run.after else dry_run
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
            self.forgotten += 1

    def beside(self, watched: Iterable[Acts]) -> "KnownDryRuns":
        """These, and those that are still watched as they stand now."""
        acts, open_ = self._known.copy(), 0
        for each in watched:
            acts |= each
            open_ += len(each)
        return KnownDryRuns(acts=acts, watched=open_, forgotten=self.forgotten)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDryRuns:
    """Acts by their keys, at one moment."""

    acts: Acts
    watched: int
    forgotten: int

    def newest(self) -> list[DryRun]:
        """The newest dry_runs, as many as one request can assess."""
        return list(islice(reversed(list(self.acts.values())), _MOST_ASKED))


MOST_WATCHED: Final = 500
"""At one server; each costs less than what is known of a session anyway."""

_LONGEST: Final = Duration(7 * 86_400 * SECOND)
_BLIND_AFTER: Final = Duration(60 * SECOND)
_BLIND_INTERVALS: Final = 3
_ENDED_BY_US: Final = {Result.TERMINATED, Result.SIGNALLED, Result.CANCELLED, Result.UNKNOWN}


class Looking(Protocol):
    """Looks at single sessions."""

    async def look(self, ids: Collection[SessionId]) -> WatchedSessions | None:
        """How these stand."""


@dataclass(slots=True)
class _Case:
    """One that is watched, and up to when it was told that it is unused."""

    watched: DryRunSession
    told: Duration = Duration(0)  # noqa: RUF009 (a number)


class Watch:
    """The open cases of one server; of longer life than a connection."""

    def __init__(
        self, server: str, ledger: Ledger, dry_runs: OutcomeStore, *, most: int = MOST_WATCHED
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._trials = dry_runs
        self._most = most
        self._open: dict[DryRunKey, _Case] = {}
        self._author: Author | None = None
        self._looked = Timestamp(0)
        self._interrupted = False

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._open)

    def interrupted(self) -> None:
        """Note that the connection was lost: sessions that are gone later may have ended with the server."""
        self._interrupted = True

    async def cycled(
        self, cycle: Cycle, onlooker: Looking, author: Author, *, interval: Duration
    ) -> list[ObservedOutcome]:
        """Find the outcomes that this cycle shows, and start watching its dry-run sessions; raises Lost.

        That one is still unused is recorded again from time to time, and is news only once.
        """
        self._author = author
        became: list[ObservedOutcome] = []
        old = self._told_before
        if self._open:
            became += self._set_aside(cycle, author)
            became += await self._looked_at(cycle, onlooker, interval)
            became += self._grown_old(cycle.snapshot.at)
        else:
            self._looked = cycle.snapshot.at
        became += self._begin(cycle, author)
        self._note(became)
        return _news(became, old)

    def end(self) -> list[ObservedOutcome]:
        """End the watch: sessions that were unused at the last snapshot count as unused until then."""
        became = [unused(case.watched, self._looked) for case in self._open.values()]
        old = self._told_before
        self._open.clear()
        self._note(became)
        return _news(became, old)

    def acts(self) -> Acts:
        """Those that are watched, as they stood at the last look."""
        return {
            (self._server, key): DryRun.of(unused(case.watched, self._looked), self._server)
            for key, case in self._open.items()
        }

    @property
    def _told_before(self) -> set[DryRunKey]:
        return {key for key, case in self._open.items() if case.told}

    def _set_aside(self, cycle: Cycle, author: Author) -> list[ObservedOutcome]:
        """Stop watching sessions: the rules are new, the clock jumped, or a policy acted on them."""
        now = cycle.snapshot.at
        earlier = [case for case in self._open.values() if case.watched.rules != author.rules]
        ended = self._closed(unused(case.watched, self._looked) for case in earlier)
        if cycle.clock_step is not None:
            why = "the server's clock was set"
            return ended + self._closed(unknown(case.watched, now, why) for case in self._open.values())
        ours = {
            candidate.session.id for candidate, outcome in cycle.settled if outcome.result in _ENDED_BY_US
        }
        why = "a policy that enforces has acted on it"
        acted_on = [case.watched for case in self._open.values() if case.watched.id in ours]
        return ended + self._closed(unknown(one, now, why) for one in acted_on)

    async def _looked_at(self, cycle: Cycle, onlooker: Looking, interval: Duration) -> list[ObservedOutcome]:
        snapshot = cycle.snapshot
        watched = [case.watched for case in self._open.values()]
        seen = times_in(snapshot, watched)
        became = self._fates(watched, seen, snapshot.at, interval)
        left_out = {one.id for one in watched} - seen.keys()
        asked = await onlooker.look(left_out) if left_out else None
        if asked:
            became += self._fates(watched, asked.sessions, asked.at, interval)
        if asked or not left_out:
            self._looked, self._interrupted = snapshot.at, False
        return self._closed(became)

    def _fates(
        self,
        watched: Iterable[DryRunSession],
        seen: dict[SessionId, SessionTimes | None],
        at: Timestamp,
        interval: Duration,
    ) -> list[ObservedOutcome]:
        blind_after = (
            Duration(-1) if self._interrupted else Duration(max(_BLIND_INTERVALS * interval, _BLIND_AFTER))
        )
        return outcomes_of(watched, seen, CheckTimes(at=at, before=self._looked, longest_gap=blind_after))

    def _grown_old(self, now: Timestamp) -> list[ObservedOutcome]:
        """Sessions to report as still unused; after a week they are no longer watched."""
        due = [case for case in self._open.values() if report_due(case.watched, now, case.told)]
        became = [unused(case.watched, now) for case in due]
        for case, one in zip(due, became, strict=True):
            case.told = one.after
            if one.after >= _LONGEST:
                del self._open[case.watched.key]
        return became

    def _begin(self, cycle: Cycle, author: Author) -> list[ObservedOutcome]:
        unwatched = []
        for intent, candidate in cycle.dry_run_before:
            one = DryRunSession(
                intent=intent, candidate=candidate, at=cycle.snapshot.at, cycle=cycle.name, rules=author.rules
            )
            if one.key in self._open:
                continue  # rehearsed again after a lost connection: still the same act
            if len(self._open) < self._most:
                self._open[one.key] = _Case(one)
            else:
                why = f"not watched: {self._most} are watched already"
                unwatched.append(unknown(one, one.at, why))
        return unwatched

    def _closed(self, became: Iterable[ObservedOutcome]) -> list[ObservedOutcome]:
        became = list(became)
        for one in became:
            self._open.pop(one.watched.key, None)
        return became

    def _note(self, became: list[ObservedOutcome]) -> None:
        for one in became:
            self._trials.note(self._server, one)
        if self._author and became:
            # The cycle that wants to act finds out as well, and tells.
            with suppress(AuditLogFailed):
                self._ledger.log_dry_run_outcomes(self._author, became)


def _news(became: Iterable[ObservedOutcome], old: set[DryRunKey]) -> list[ObservedOutcome]:
    return [one for one in became if one.outcome is not DryRunOutcome.UNUSED or one.watched.key not in old]


class News(NamedTuple):
    """What has come out since the last cycle."""

    outcomes: Sequence[ObservedOutcome]
    paused: Sequence[PausedGroup]


class FollowUp:
    """Looks at what cycles have led to, and records it; of longer life than a connection."""

    def __init__(
        self, server: str, ledger: Ledger, dry_runs: OutcomeStore, *, before: "FollowUp | None" = None
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._trials = dry_runs
        # What another loop watches stays its own: that loop is still at its end when this one begins, maybe
        # at another server, and neither can tell what became of the other's sessions.
        self.watch = Watch(server, ledger, dry_runs)
        self.refills: RefillDetector = before.refills if before else RefillDetector()

    def next(self) -> "FollowUp":
        """What the loop that takes the place of this one begins with."""
        return FollowUp(self._server, self._ledger, self._trials, before=self)

    def reminded(self, memory: Memory) -> Memory:
        """What the next cycle has to know of it."""
        return memory.with_paused(self.refills.paused)

    async def cycled(
        self, cycle: Cycle, onlooker: SessionWatcher, author: Author, *, interval: Duration
    ) -> News:
        """Look; raises Lost. Nobody rehearsed and nobody ended lately: nothing to look at."""
        paused = await self.refills.cycled(cycle, onlooker)
        # The cycle that wants to act finds out as well, and tells.
        with suppress(AuditLogFailed):
            self._ledger.log_refill_guard(author, cycle.name, paused)
        return News(await self.watch.cycled(cycle, onlooker, author, interval=interval), paused)
