"""Who falls due when: of all sessions of a history only those are asked whose moment has come.

A session waits under the soonest moment at which any policy could mean it as it is now. Most change before
that; they are asked again when the moment has come, and no sooner: a busy session costs next to nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from reaper.policy.rules import Rules
from reaper.policy.seen import Seen
from reaper.policy.session import Session, SessionId
from reaper.policy.spans import Instant
from reaper.policy.unjudged import unknown

_MANY: Final = 4_096


class Ripening:
    """The sessions of one server under one set of rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._queue: list[tuple[Instant, SessionId]] = []
        self._queued: dict[SessionId, Instant] = {}

    def expect(self, seen: Seen) -> None:
        """From now on it is like this."""
        soonest = self.soonest(seen)
        if soonest is not None:
            self._push(seen.id, soonest)

    def forget(self, who: SessionId) -> None:
        """It has left."""
        self._queued.pop(who, None)

    def soonest(self, seen: Seen) -> Instant | None:
        """No policy can mean it before this moment; nothing when none ever will as it is."""
        meant = self._rules.meaning(seen)
        if not meant.policies or seen.state_change is None:
            return None
        return Instant(seen.state_change + meant.soonest)

    def come(self, until: Instant, sessions: Mapping[SessionId, Seen]) -> Iterable[Seen]:
        """Those who could fall due by this moment, and wait no more."""
        while self._queue and self._queue[0][0] <= until:
            moment, who = heappop(self._queue)
            if self._queued.get(who) != moment:
                continue
            del self._queued[who]
            seen = sessions[who]
            soonest = self.soonest(seen)
            if soonest is not None and soonest > until:
                self._push(who, soonest)
            elif soonest is not None and unknown(seen) is None:
                yield seen
        if len(self._queue) > _MANY + 4 * len(self._queued):
            self._queue = [(moment, who) for who, moment in self._queued.items()]
            heapify(self._queue)

    def wait(self, who: SessionId, moment: Instant) -> None:
        """It is to be asked again at this moment."""
        self._push(who, moment)

    def due(self, session: Session | Seen, after: Instant | None) -> Instant | None:
        """When the next policy means it, if it stays as it is: the first, or the first after a moment."""
        moments = (policy.match.due(session) for policy in self._rules.meaning(session).policies)
        return min(
            (due for due in moments if due is not None and (after is None or due > after)), default=None
        )

    def reached(self, session: Session, at: Instant) -> Iterator[str]:
        """The policies whose ages it has reached by then."""
        for policy in self._rules.meaning(session).policies:
            due = policy.match.due(session)
            if due is not None and due <= at:
                yield policy.name

    def missed(self, was: Seen, after: Instant, until: Instant, resting: Collection[str]) -> bool:
        """Whether a policy could have met it between these moments, had it stayed as it was for so long."""
        soonest = self.soonest(was)
        if soonest is None or soonest > until:
            return False
        meant = self._rules.meaning(was)
        for policy in meant.policies:
            due = None if policy.name in meant.allowed or policy.name in resting else policy.match.due(was)
            if due is not None and after < due <= until:
                return True
        return False

    def _push(self, who: SessionId, moment: Instant) -> None:
        queued = self._queued.get(who)
        if queued is None or moment < queued:
            self._queued[who] = moment
            heappush(self._queue, (moment, who))
