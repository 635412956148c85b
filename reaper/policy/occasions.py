"""From one reading to the next: who is known to be how, from when on, and when each falls due."""

from heapq import heappop, heappush
from typing import NamedTuple

from reaper.policy.ripe import Ripe
from reaper.policy.ripening import Ripening
from reaper.policy.seen import Reading, stands
from reaper.policy.session import Session, SessionId
from reaper.policy.spans import Instant


class _Due(NamedTuple):
    at: Instant
    number: int
    """No two are equal, so that sessions are never compared."""
    session: Session
    until: Instant | None
    """It is known to be like this until then; None as long as the reading says."""


class Occasions:
    """What falls due on the way to a reading."""

    def __init__(
        self,
        ripening: Ripening,
        ripe: Ripe,
        reading: Reading,
        last: Instant | None,
    ) -> None:
        self._ripening = ripening
        self._ripe = ripe
        self._reading = reading
        self._count = 0
        self._known: list[_Due] = []
        self._waiting: list[_Due] = []
        """Sessions of which the last look could not know yet, by the moment from which on one could."""
        self._passing: list[_Due] = []
        """Sessions that are like this for a while only, by the end of it."""
        self.came_and_went: list[SessionId] = []
        for seen in ripening.come(reading.at, reading.sessions):
            session = seen.session(reading.counted_from)
            due = ripening.due(session, last if seen.id in ripe else None)
            self._add(session, due, None, last)
        for sighting in reading.sightings:
            for seen in sighting.sessions:
                now = reading.sessions.get(seen.id)
                if now is None or not stands(now, seen):
                    session = seen.session(reading.counted_from)
                    self._add(session, ripening.due(session, None), sighting.at, last)

    @property
    def are_over(self) -> bool:
        """Whether nobody falls due any more."""
        return not (self._known or self._waiting or self._passing)

    def next_due(self) -> Instant | None:
        """The next deadline of whom the last look has known."""
        return self._known[0].at if self._known else None

    def reach(self, at: Instant) -> set[str]:
        """Those who are due by now are ripe; for which policies there is anything new."""
        new = self._pass(at)
        while self._waiting and self._waiting[0].at <= at:
            _, number, session, until = heappop(self._waiting)
            due = self._ripening.due(session, None)
            if due is not None:
                heappush(self._known, _Due(due, number, session, until))
        while self._known and self._known[0].at <= at:
            one = heappop(self._known)
            if one.until is not None and one.until < at:
                continue
            names = set(self._ripening.reached(one.session, at))
            self._ripe.put(one.session, names)
            new |= names
            if one.until is not None:
                self._count += 1
                heappush(self._passing, one._replace(at=one.until, number=self._count))
            self._again(one, at)
        return new

    def leave(self) -> None:
        """The reading is reached: whoever is still to fall due does so on the way to the next one."""
        self._pass(None)
        for one in self._known:
            if one.until is None:
                self._ripening.wait(one.session.id, one.at)
        for one in self._waiting:
            if one.until is None and (due := self._ripening.due(one.session, None)) is not None:
                self._ripening.wait(one.session.id, due)

    def _add(
        self, session: Session, due: Instant | None, until: Instant | None, last: Instant | None
    ) -> None:
        if due is None:
            return
        if due > (self._reading.at if until is None else until):
            if until is None:
                self._ripening.wait(session.id, due)
            return
        self._count += 1
        since = session.id.backend_start if session.state_change is None else session.state_change
        if last is not None and since <= last < due:
            heappush(self._known, _Due(due, self._count, session, until))
        else:
            heappush(self._waiting, _Due(since, self._count, session, until))

    def _again(self, one: _Due, at: Instant) -> None:
        """Another policy may mean it later."""
        due = self._ripening.due(one.session, at)
        if due is None:
            return
        if due <= (self._reading.at if one.until is None else one.until):
            self._count += 1
            heappush(self._known, one._replace(at=due, number=self._count))
        elif one.until is None:
            self._ripening.wait(one.session.id, due)

    def _pass(self, at: Instant | None) -> set[str]:
        """Let go of those who are no longer known to be as they were; all of them at the end."""
        new = set[str]()
        while self._passing and (at is None or self._passing[0].at < at):
            session = heappop(self._passing).session
            if self._ripe.sessions.get(session.id) is session:
                new |= self._ripe.pop(session.id)
                self.came_and_went.append(session.id)
        return new
