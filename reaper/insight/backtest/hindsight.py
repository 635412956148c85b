"""What became of those whom a backtest took: the same fates, and the same regret, as of a rehearsal."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from reaper.insight.backtest.replay import Stretch, Taken
from reaper.insight.dryrun.outcomes import Fate, Fated, Look, Standing, Watched, fates, unused
from reaper.insight.dryrun.regret import Limit, Regret, Trial, limit_under
from reaper.policy.seen import Reading, Seen, Sighting
from reaper.policy.session import SessionId
from reaper.policy.time import SECOND, Instant, Span

MOST_TRIALS: Final = 100_000
"""So many of a policy are remembered one by one, to work out another limit; all of them are counted."""

_BLIND_AFTER: Final = Span(60 * SECOND)
_BLIND_READINGS: Final = 3


class Hindsight:
    """Watches whoever was taken until something becomes of it."""

    def __init__(self, server: str, named: Callable[[str | None], str]) -> None:
        self._server = server
        self._named = named
        self._watched: defaultdict[SessionId, list[Watched]] = defaultdict(list)
        self._at: Instant | None = None
        self._trials: defaultdict[str, list[Trial]] = defaultdict(list)
        self._counts: defaultdict[str, Counter[object]] = defaultdict(Counter)
        self.applications: defaultdict[str, Counter[object]] = defaultdict(Counter)
        """The same for each application."""

    def read(self, reading: Reading, stretch: Stretch) -> None:
        """Go on to this reading, and watch those that were taken on the way; it marks who was before."""
        for number, taken in enumerate(stretch.taken):
            one = _watched(taken, number)
            if any(known.key == one.key for known in self._watched[one.id]):
                stretch.taken[number] = taken._replace(again=True)  # as after a restart of the service
            else:
                self._watched[one.id].append(one)
        if self._watched:
            self._look(reading, {one.reap.session.id for one in stretch.taken})
        self._at = reading.at

    def end(self) -> None:
        """The history ends: whoever is still as it was, was not used until then."""
        if self._at is None:
            return
        for several in self._watched.values():
            for one in several:
                self._note(unused(one, self._at))
        self._watched.clear()

    def regret(self, policy: str) -> Regret:
        """Of those that a policy took."""
        return _regret(self._counts[policy])

    def regret_of_application(self, application: str) -> Regret:
        """Of an application's sessions."""
        return _regret(self.applications[application])

    def limit(self, policy: str) -> Limit | None:
        """The idle limit at which few would have been regretted."""
        return limit_under(self._trials[policy])

    def _look(self, reading: Reading, new: set[SessionId]) -> None:
        for sighting in reading.sightings:
            self._glance(sighting)
        ids = {*(now.id for _, now in reading.changed), *(was.id for was in reading.left), *new}
        seen = dict[SessionId, Standing | None]()
        for who in ids & self._watched.keys():
            now = reading.sessions.get(who)
            seen[who] = now and _standing(now)
        blind_after = Span(max(_BLIND_READINGS * reading.every, _BLIND_AFTER))
        before = reading.at if self._at is None else self._at
        self._settle(seen, Look(at=reading.at, before=before, blind_after=blind_after))

    def _glance(self, sighting: Sighting) -> None:
        """Who fell due again between two readings was used before; the next may show them no more."""
        seen = {now.id: _standing(now) for now in sighting.sessions if now.id in self._watched}
        self._settle(seen, Look(at=sighting.at, before=sighting.at, blind_after=_BLIND_AFTER))

    def _settle(self, seen: Mapping[SessionId, Standing | None], look: Look) -> None:
        watched = [one for who in seen for one in self._watched[who] if one.at <= look.at]
        for fated in fates(watched, seen, look):
            self._watched[fated.watched.id].remove(fated.watched)
            self._note(fated)
        for who in [who for who in seen if not self._watched[who]]:
            del self._watched[who]

    def _note(self, fated: Fated) -> None:
        trial = Trial.of(fated, self._server)
        trials = self._trials[trial.policy]
        if len(trials) < MOST_TRIALS:
            trials.append(trial)
        self._counts[trial.policy][trial.counts_as] += 1
        self.applications[self._named(trial.identity.application)][trial.counts_as] += 1


def _standing(seen: Seen) -> Standing:
    return Standing(seen.state_change, seen.query_start, seen.xact_start)


def _watched(taken: Taken, number: int) -> Watched:
    return Watched(intent=f"{taken.at}-{number}", reap=taken.reap, at=taken.at, cycle="", rules="")


def _regret(counts: Counter[object]) -> Regret:
    """As `Regret.of` counts, without keeping what was counted."""
    return Regret(
        unused=counts[Fate.UNUSED],
        left=counts[Fate.LEFT],
        revived=counts[Fate.REVIVED],
        unknown=counts[Fate.UNKNOWN],
        too_soon=counts[None],
    )
