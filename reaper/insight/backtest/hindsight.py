"""What happened to the sessions that a backtest terminated: outcomes and regret as of a dry run."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from reaper.insight.backtest.replay import ReplayStep, ReplayTermination
from reaper.insight.dryrun.outcomes import (
    CheckTimes,
    DryRunOutcome,
    DryRunSession,
    ObservedOutcome,
    SessionTimes,
    outcomes_of,
    unused,
)
from reaper.insight.dryrun.regret import DryRun, Limit, Regret, limit_under
from reaper.insight.recorded import RecordedSnapshot
from reaper.policy.session import SessionId
from reaper.policy.time import SECOND, Duration, Timestamp

_MAX_DRY_RUNS: Final = 100_000
"""Terminations of a policy that are remembered one by one, to propose another limit; all are counted."""
_ALLOWED_GAP: Final = Duration(60 * SECOND)
_GAP_SNAPSHOTS: Final = 3


class Hindsight:
    """Follows each terminated session until its outcome is known."""

    def __init__(self, server: str, label: Callable[[str | None], str]) -> None:
        self._server = server
        self._label = label
        self._watched: defaultdict[SessionId, list[DryRunSession]] = defaultdict(list)
        self._at: Timestamp | None = None
        self._dry_runs: defaultdict[str, list[DryRun]] = defaultdict(list)
        self._policies: defaultdict[str, Counter[DryRunOutcome | None]] = defaultdict(Counter)
        self._applications: defaultdict[str, Counter[DryRunOutcome | None]] = defaultdict(Counter)

    def read(self, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        """Go on to this snapshot, and mark terminations in the step that were known before."""
        for number, termination in enumerate(step.terminations):
            one = _watched(termination, number)
            if any(known.key == one.key for known in self._watched[one.id]):
                step.terminations[number] = termination._replace(again=True)
            else:
                self._watched[one.id].append(one)
        for partial in recorded.partial:
            known = {one.id: SessionTimes.of(one) for one in partial.sessions if one.id in self._watched}
            self._settle(known, CheckTimes(at=partial.at, before=partial.at, longest_gap=_ALLOWED_GAP))
        new = (one.candidate.session for one in step.terminations)
        touched = {one.id for one in (*(now for _, now in recorded.changed), *recorded.left, *new)}
        now: dict[SessionId, SessionTimes | None] = {}
        for who in touched & self._watched.keys():
            session = recorded.sessions.get(who)
            now[who] = None if session is None else SessionTimes.of(session)
        longest_gap = Duration(max(_GAP_SNAPSHOTS * recorded.every, _ALLOWED_GAP))
        before = recorded.at if self._at is None else self._at
        self._settle(now, CheckTimes(at=recorded.at, before=before, longest_gap=longest_gap))
        self._at = recorded.at

    def end(self) -> None:
        """Count the sessions that were not used until the end of the history."""
        for watched in self._watched.values():
            for one in watched:
                self._count(unused(one, one.at if self._at is None else self._at))
        self._watched.clear()

    def regret(self, policy: str) -> Regret:
        """Return the regret of a policy."""
        return Regret.counted(self._policies[policy])

    def total(self) -> Regret:
        """Return the regret of all policies."""
        return Regret.counted(sum(self._policies.values(), Counter()))

    def regret_of_application(self, label: str) -> Regret:
        """Return the regret over the sessions of an application."""
        return Regret.counted(self._applications[label])

    def limit(self, policy: str) -> Limit | None:
        """Return the idle limit at which few terminations of a policy would have been regretted."""
        return limit_under(self._dry_runs[policy])

    def _settle(self, now: Mapping[SessionId, SessionTimes | None], check: CheckTimes) -> None:
        watched = [one for who in now for one in self._watched[who] if one.at <= check.at]
        for observed in outcomes_of(watched, now, check):
            self._watched[observed.watched.id].remove(observed.watched)
            self._count(observed)
        for who in [who for who in now if not self._watched[who]]:
            del self._watched[who]

    def _count(self, observed: ObservedOutcome) -> None:
        dry_run = DryRun.of(observed, self._server)
        dry_runs = self._dry_runs[dry_run.policy]
        if len(dry_runs) < _MAX_DRY_RUNS:
            dry_runs.append(dry_run)
        self._policies[dry_run.policy][dry_run.counts_as] += 1
        self._applications[self._label(dry_run.identity.application)][dry_run.counts_as] += 1


def _watched(termination: ReplayTermination, number: int) -> DryRunSession:
    intent = f"{termination.at}-{number}"
    return DryRunSession(
        intent=intent, candidate=termination.candidate, at=termination.at, cycle="", rules=""
    )
