"""A history judged as the service would have judged it: same decision, same memory, same rhythm.

Between two readings a session that is as it was has been so all the time, so what falls due there is judged
at its very moment; of one that has changed meanwhile nothing is known but what the later reading tells, and
it is not taken. Whoever is taken stays in the history and counts as gone until its client uses it again: then
the client would have had to connect anew. That is what a dry run does as well.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from reaper.policy.decide import decide, questions
from reaper.policy.memory import Memory
from reaper.policy.plan import BrakeTrip, Outcome, Plan, Reap, Result, Spared, unknown
from reaper.policy.rules import Action, Rules
from reaper.policy.seen import Mark, Reading, Seen, stands
from reaper.policy.session import CLIENT_BACKEND, Facts, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.time import SECOND, Instant, Span

_RESTLESS: Final = {Spared.PACE, Spared.FIRST_SIGHTING, Spared.CAP}
"""What spares now and may not spare next time, though nothing has changed."""
_MINUTE: Final = 60 * SECOND
_FEW: Final = 16
_NOBODY: Final = Watcher(pid=0, role="", superuser=False)


class Gates(NamedTuple):
    """Which policies rest at a moment."""

    closed: frozenset[str] = frozenset()
    """Those that rest, whichever of those that were taken is left out."""
    without_freed: frozenset[str] = frozenset()
    """Those that would rest without the slots that were freed."""


_OPEN: Final = Gates()


class Calm:
    """Knows whether the last plan would be made again."""

    def __init__(self, rules: Rules) -> None:
        self._gated = [policy for policy in rules.awake if policy.when or policy.during]
        self._rehearsing = frozenset(policy.name for policy in rules.rehearsing)
        self._was: Gates | None = None
        self._braked_at: int | None = None
        self._known: dict[tuple[int, Slots], frozenset[str]] = {}

    def disturb(self) -> None:
        """Something has changed."""
        self._was = None

    @property
    def lasts(self) -> bool:
        """Whether it goes on however much time passes."""
        return self._was is not None and not self._gated and self._braked_at is None

    def gates(self, at: Instant, slots: Slots, freed: int) -> Gates:
        """Which policies rest now, with all slots that are used and without those that were freed."""
        if not self._gated:
            return _OPEN
        closed = self._closed(at, slots)
        if not freed:
            return Gates(closed, closed)
        without = self._closed(at, replace(slots, used=max(slots.used - freed, 0)))
        # A rehearsal finds the slots free of all that were taken; an enforcing policy may not.
        return Gates(closed | (without & self._rehearsing), without)

    def _closed(self, at: Instant, slots: Slots) -> frozenset[str]:
        key = at // _MINUTE, slots  # no window is told more exactly
        if key not in self._known:
            look = Snapshot(server="", at=at, slots=slots, watcher=_NOBODY, sessions=())
            closed = frozenset(policy.name for policy in self._gated if policy.rests(look))
            self._known = {**(self._known if len(self._known) < _FEW else {}), key: closed}
        return self._known[key]

    def holds(self, gates: Gates, used: int) -> bool:
        """Whether the last plan stands; a brake counts the clients as well."""
        return self._was is not None and self._was == gates and self._braked_at in {None, used}

    def judged(self, plan: Plan, gates: Gates, used: int) -> None:
        """This was decided."""
        self._braked_at = used if plan.brakes else None
        restless = any(
            isinstance(verdict, Reap) or verdict.by in _RESTLESS
            for verdict in (*plan.judged, *plan.rehearsed_beside)
        )
        self._was = None if restless else gates


class Ripe:
    """Sessions by the policies whose ages they have reached."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self._policies: dict[SessionId, frozenset[str]] = {}
        self._under: dict[str, dict[SessionId, None]] = {}

    def __contains__(self, who: SessionId) -> bool:
        """Whether it is among them."""
        return who in self.sessions

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self.sessions)

    def put(self, session: Session, policies: Iterable[str]) -> None:
        """These policies could mean it by now."""
        names = frozenset(policies)
        before = self._policies.get(session.id, frozenset())
        for name in names - before:
            self._under.setdefault(name, {})[session.id] = None
        self._policies[session.id] = names | before
        self.sessions[session.id] = session

    def swap(self, session: Session) -> None:
        """It is still as it was, and something is known anew of it."""
        self.sessions[session.id] = session

    def pop(self, who: SessionId) -> frozenset[str]:
        """It is among them no longer; under which policies it was."""
        if self.sessions.pop(who, None) is None:
            return frozenset()
        names = self._policies.pop(who)
        for name in names:
            del self._under[name][who]
        return names

    def under(self, policies: Collection[str]) -> Mapping[SessionId, Session]:
        """Those whom any of these policies could mean."""
        found = dict[SessionId, Session]()
        for name in policies:
            for who in self._under.get(name, ()):
                found[who] = self.sessions[who]
        return found


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


class Rhythm(NamedTuple):
    """How often the service looks."""

    interval: Span
    precision: Span


class Taken(NamedTuple):
    """A session that would have been taken, and when."""

    at: Instant
    reap: Reap
    again: bool = False
    """The same act once more: since it was taken the session has stayed as it was, and nobody had looked."""


class Level(NamedTuple):
    """How many slots were used, and how many would have been."""

    at: Instant
    used: int
    would: int


@dataclass(slots=True, kw_only=True)
class Stretch:
    """What would have happened from one reading to the next."""

    at: Instant
    gap: Span | None = None
    """Nothing is known of so long a time before it; everybody is seen for the first time again."""
    taken: list[Taken] = field(default_factory=list)
    trips: list[tuple[Instant, BrakeTrip]] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    back: list[SessionId] = field(default_factory=list)
    """Who counted as gone and does so no longer: it was used again, or has left by itself."""
    uncertain: int = 0
    """Who changed or left between two readings when it could have been taken there."""
    looks: int = 0


_REHEARSED: Final = Outcome(result=Result.REHEARSED)
_GAP: Final = Span(60 * SECOND)
"""Readings so far apart, and thrice as far as they were meant to be, leave something out."""
_MISSED: Final = 3


class Replay:
    """Judges the readings of one server, one after the other."""

    def __init__(self, rules: Rules, rhythm: Rhythm, *, thrifty: bool = True) -> None:
        self.rules = rules
        self.rhythm = rhythm
        self.thrifty = thrifty
        """Whether it leaves out what cannot matter; the other way is there to compare."""
        self.capped = any(policy.cap for policy in rules.awake)
        self.calm = Calm(rules)
        self._at: Instant | None = None
        self._restart()

    def _restart(self) -> None:
        self.ripening = Ripening(self.rules)
        self.ripe = Ripe()
        self.memory = Memory()
        self.gone: set[SessionId] = set()
        """Those who were taken, and were not used since."""
        self.last: Instant | None = None
        """The last look."""
        self.hurry = False
        """Whether somebody waits for a second look."""
        self.used = 0
        self.facts = Facts()
        self._counted_from: Instant | None = None
        self.calm.disturb()

    def level(self, at: Instant, used: int) -> Level:
        """How many slots are used, and how many would be."""
        return Level(at, used, max(used - len(self.gone), 0))

    def read(self, reading: Reading) -> Stretch:
        """Go on to this reading."""
        stretch = Stretch(at=reading.at)
        if self._at is None or self._breaks(self._at, reading):
            stretch.gap = None if self._at is None else Span(max(reading.at - self._at, 0))
            stretch.back = list(self.gone)
            self._restart()
            self._counted_from = reading.counted_from
            for seen in reading.sessions.values():
                self.ripening.expect(seen)
            begin = reading.at
        else:
            begin = self._at
            self._change(reading, begin, stretch)
        _Walk(self, reading, begin, stretch).go()
        self._at, self.used, self.facts = reading.at, reading.slots.used, reading.facts
        return stretch

    def _breaks(self, before: Instant, reading: Reading) -> bool:
        """Whether what lies between is unknown, or the clock has jumped: then everybody is new."""
        apart = reading.at - before
        return apart > max(_GAP, _MISSED * reading.every) or reading.counted_from != self._counted_from

    def _change(self, reading: Reading, begin: Instant, stretch: Stretch) -> None:
        for was, now in reading.changed:
            if was is not None and stands(was, now):
                continue
            self.ripening.expect(now)
            self._drop(now.id, stretch)
            if was is not None:
                moments = (now.state_change, now.query_start, reading.at)
                began = was.state_change or 0
                woke = min((each for each in moments if each and each > began), default=reading.at)
                self._doubt(was, begin, woke, reading, stretch)
        for was in reading.left:
            self.ripening.forget(was.id)
            self._drop(was.id, stretch)
            self._doubt(was, begin, reading.at, reading, stretch)

    def _drop(self, who: SessionId, stretch: Stretch) -> None:
        if self.ripe.pop(who):
            self.calm.disturb()
        if who in self.gone:
            self.gone.remove(who)
            stretch.back.append(who)

    def _doubt(self, was: Seen, after: Instant, until: Instant, reading: Reading, stretch: Stretch) -> None:
        """It could have been taken before it changed, by a policy that acts at this time."""
        resting = self.calm.gates(reading.at, reading.slots, 0).closed
        if self.ripening.missed(was, after, until, resting):
            known = (seen for sighting in reading.sightings for seen in sighting.sessions)
            stretch.uncertain += not any(seen.id == was.id and stands(was, seen) for seen in known)


class _Walk:
    """The looks from one reading to the next."""

    def __init__(self, replay: Replay, reading: Reading, begin: Instant, stretch: Stretch) -> None:
        self._of = replay
        self._reading = reading
        self._begin = begin
        self._stretch = stretch
        self._occasions = Occasions(replay.ripening, replay.ripe, reading, replay.last)
        self._arrivals = _arrivals(reading, begin)
        self._base = Mark(begin, replay.used)
        self._between = _between(replay.facts, reading.facts)
        if replay.facts != reading.facts:
            replay.calm.disturb()

    def go(self) -> None:
        """Look at every moment at which the service would have looked."""
        of, reading = self._of, self._reading
        looks = (look for look in reading.looks if look.at > self._begin)
        mark = next(looks, None)
        while (at := self._next(mark)) <= reading.at:
            if mark is not None and mark.at == at:
                self._base, mark = mark, next(looks, None)
            self._look(at)
            of.last = at
        self._occasions.leave()
        self._forget_who_went()
        self._catch_up()
        self._stretch.levels.append(of.level(reading.at, reading.slots.used))

    def _next(self, mark: Mark | None) -> Instant:
        """When the loop's rest ends; a look of which the history knows was the one that was meant."""
        planned = self._planned()
        return mark.at if mark is not None and mark.at <= planned + self._of.rhythm.precision else planned

    def _planned(self) -> Instant:
        """At the next deadline of which the last look has known, or with the interval."""
        of, interval, precision = self._of, *self._of.rhythm
        if of.last is None:
            return self._reading.at
        if of.hurry:
            return Instant(of.last + precision)  # the second look that must agree
        if (due := self._occasions.next_due()) is not None:
            return Instant(of.last + min(max(due - of.last, precision), interval))
        intervals = 1
        if of.thrifty and self._occasions.are_over and (of.calm.lasts or not of.ripe):
            intervals = max((self._reading.at - of.last) // interval, 1)
        return Instant(of.last + intervals * interval)

    def _look(self, at: Instant) -> None:
        of, stretch = self._of, self._stretch
        stretch.looks += 1
        of.hurry = False
        new = self._occasions.reach(at)
        self._forget_who_went()
        if at == self._reading.at:
            self._catch_up()
        used = self._used(at)
        if self._base.at == at:
            stretch.levels.append(of.level(at, used))
        slots = replace(self._reading.slots, used=used)
        gates = of.calm.gates(at, slots, len(of.gone))
        if new - gates.closed:
            of.calm.disturb()
        if of.thrifty and of.calm.holds(gates, used):
            return
        candidates = self._candidates(gates)
        if of.thrifty and not candidates:
            of.memory = replace(of.memory, braked=frozenset()) if of.ripe else Memory()
            return
        snapshot = self._snapshot(at, slots, candidates)
        plan = decide(snapshot=snapshot, rules=of.rules, memory=self._memory())
        of.calm.judged(plan, gates, used)
        of.hurry = any(spare.by is Spared.FIRST_SIGHTING for spare in plan.matched_spares)
        self._settle(snapshot, plan)

    def _settle(self, snapshot: Snapshot, plan: Plan) -> None:
        of, stretch = self._of, self._stretch
        taken = (*plan.reaps, *plan.rehearsals)
        fresh = (trip for trip in plan.brakes if trip.policy.name not in of.memory.braked)
        stretch.trips += [(snapshot.at, trip) for trip in fresh]
        of.memory = of.memory.after(snapshot, [(reap, _REHEARSED) for reap in taken], plan.brakes)
        for reap in taken:
            stretch.taken.append(Taken(snapshot.at, reap))
            if reap.action is Action.TERMINATE and reap.session.kind == CLIENT_BACKEND:
                of.gone.add(reap.session.id)

    def _candidates(self, gates: Gates) -> Mapping[SessionId, Session]:
        """Those whom a policy that acts now could mean, and those to be remembered as taken."""
        of = self._of
        open_now = [policy.name for policy in of.rules.awake if policy.name not in gates.closed]
        found = of.ripe.under(open_now)
        if not found or not gates.closed:
            return found
        taken = {was.id for was in of.memory.rehearsed}
        return {**found, **{who: of.ripe.sessions[who] for who in taken if who in of.ripe}}

    def _memory(self) -> Memory:
        """Who was there at the last look has been seen."""
        last = self._of.last
        seen = (who for who in self._of.ripe.sessions if last is not None and who.backend_start <= last)
        return replace(self._of.memory, seen=frozenset(seen))

    def _snapshot(self, at: Instant, slots: Slots, candidates: Mapping[SessionId, Session]) -> Snapshot:
        of, reading = self._of, self._reading
        snapshot = Snapshot(
            server=reading.server,
            at=at,
            slots=slots,
            watcher=reading.watcher,
            sessions=tuple(candidates.values()),
            unreadable=reading.unreadable,
            facts=reading.facts if at == reading.at else self._between,
        )
        if not of.thrifty or (of.capped and questions(snapshot, of.rules).everybody):
            snapshot = replace(snapshot, sessions=self._everybody(at))
        shown = sum(session.kind == CLIENT_BACKEND for session in snapshot.sessions)
        return replace(snapshot, young=max(slots.used - shown, 0))

    def _everybody(self, at: Instant) -> tuple[Session, ...]:
        """All who were there; of whom it is not known yet how they are then, nothing is."""
        of, reading = self._of, self._reading
        known = {
            who: seen.session(reading.counted_from)
            if seen.since <= at
            else replace(seen.session(), state=None)
            for who, seen in reading.sessions.items()
            if who.backend_start <= at
        }
        return tuple({**known, **of.ripe.sessions}.values())

    def _used(self, at: Instant) -> int:
        if at == self._reading.at:
            return self._reading.slots.used
        came = bisect_right(self._arrivals, at) - bisect_right(self._arrivals, self._base.at)
        return self._base.used + came

    def _catch_up(self) -> None:
        """What a reading tells anew of those who are as they were: whom they hold up, what they hold back."""
        of = self._of
        if self._between != self._reading.facts:
            of.calm.disturb()
        for _, now in self._reading.changed:
            if now.id in of.ripe:
                of.ripe.swap(now.session(self._reading.counted_from))
                of.calm.disturb()

    def _forget_who_went(self) -> None:
        """Who was like that for a while only, and was taken then, was used again or has left."""
        for who in self._occasions.came_and_went:
            if who in self._of.gone:
                self._of.gone.remove(who)
                self._stretch.back.append(who)
        self._occasions.came_and_went.clear()


def _arrivals(reading: Reading, begin: Instant) -> list[Instant]:
    return sorted(
        now.id.backend_start
        for was, now in reading.changed
        if was is None and now.kind == CLIENT_BACKEND and now.id.backend_start > begin
    )


def _between(before: Facts, after: Facts) -> Facts:
    """What is sure in between: who waited at both ends, and whoever may have held a lock."""
    if before == after:
        return after
    held, holds = before.advisory_lock_holders, after.advisory_lock_holders
    waited, waits = before.waiters or {}, after.waiters or {}
    return Facts(
        advisory_lock_holders=None if held is None or holds is None else held | holds,
        waiters={pid: min(count, waited[pid]) for pid, count in waits.items() if pid in waited},
    )
