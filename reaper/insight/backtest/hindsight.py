"""What happened to the sessions that a backtest terminated: outcomes and regret as of a dry run."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from reaper.insight.backtest.replay import ReplayStep, ReplayTermination
from reaper.insight.dryrun.outcomes import Fate, Fated, Look, Standing, Watched, fates, unused
from reaper.insight.dryrun.regret import Limit, Regret, Trial, limit_under
from reaper.insight.recorded import RecordedSnapshot
from reaper.policy.session import SessionId
from reaper.policy.time import SECOND, Duration, Timestamp

_MAX_TRIALS: Final = 100_000
"""Terminations of a policy that are remembered one by one, to propose another limit; all are counted."""
_BLIND_AFTER: Final = Duration(60 * SECOND)
_BLIND_SNAPSHOTS: Final = 3


class Hindsight:
    """Follows each terminated session until its outcome is known."""

    def __init__(self, server: str, label: Callable[[str | None], str]) -> None:
        self._server = server
        self._label = label
        self._watched: defaultdict[SessionId, list[Watched]] = defaultdict(list)
        self._at: Timestamp | None = None
        self._trials: defaultdict[str, list[Trial]] = defaultdict(list)
        self._policies: defaultdict[str, Counter[Fate | None]] = defaultdict(Counter)
        self._applications: defaultdict[str, Counter[Fate | None]] = defaultdict(Counter)

    def read(self, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        """Go on to this snapshot, and mark terminations in the step that were known before."""
        for number, termination in enumerate(step.terminations):
            one = _watched(termination, number)
            if any(known.key == one.key for known in self._watched[one.id]):
                step.terminations[number] = termination._replace(again=True)
            else:
                self._watched[one.id].append(one)
        for partial in recorded.partial:
            known = {one.id: Standing.of(one) for one in partial.sessions if one.id in self._watched}
            self._settle(known, Look(at=partial.at, before=partial.at, blind_after=_BLIND_AFTER))
        new = (one.candidate.session for one in step.terminations)
        touched = {one.id for one in (*(now for _, now in recorded.changed), *recorded.left, *new)}
        now: dict[SessionId, Standing | None] = {}
        for who in touched & self._watched.keys():
            session = recorded.sessions.get(who)
            now[who] = None if session is None else Standing.of(session)
        blind_after = Duration(max(_BLIND_SNAPSHOTS * recorded.every, _BLIND_AFTER))
        before = recorded.at if self._at is None else self._at
        self._settle(now, Look(at=recorded.at, before=before, blind_after=blind_after))
        self._at = recorded.at

    def end(self) -> None:
        """Count the sessions that were not used until the end of the history."""
        for watched in self._watched.values():
            for one in watched:
                self._count(unused(one, one.at if self._at is None else self._at))
        self._watched.clear()

    def regret(self, policy: str) -> Regret:
        """Return the regret of a policy."""
        return _regret(self._policies[policy])

    def total(self) -> Regret:
        """Return the regret of all policies."""
        return _regret(sum(self._policies.values(), Counter()))

    def regret_of_application(self, label: str) -> Regret:
        """Return the regret over the sessions of an application."""
        return _regret(self._applications[label])

    def limit(self, policy: str) -> Limit | None:
        """Return the idle limit at which few terminations of a policy would have been regretted."""
        return limit_under(self._trials[policy])

    def _settle(self, now: Mapping[SessionId, Standing | None], look: Look) -> None:
        watched = [one for who in now for one in self._watched[who] if one.at <= look.at]
        for fated in fates(watched, now, look):
            self._watched[fated.watched.id].remove(fated.watched)
            self._count(fated)
        for who in [who for who in now if not self._watched[who]]:
            del self._watched[who]

    def _count(self, fated: Fated) -> None:
        trial = Trial.of(fated, self._server)
        trials = self._trials[trial.policy]
        if len(trials) < _MAX_TRIALS:
            trials.append(trial)
        self._policies[trial.policy][trial.counts_as] += 1
        self._applications[self._label(trial.identity.application)][trial.counts_as] += 1


def _watched(termination: ReplayTermination, number: int) -> Watched:
    intent = f"{termination.at}-{number}"
    return Watched(intent=intent, candidate=termination.candidate, at=termination.at, cycle="", rules="")


def _regret(counts: Counter[Fate | None]) -> Regret:
    return Regret(
        unused=counts[Fate.UNUSED],
        left=counts[Fate.LEFT],
        revived=counts[Fate.REVIVED],
        unknown=counts[Fate.UNKNOWN],
        too_soon=counts[None],
    )
