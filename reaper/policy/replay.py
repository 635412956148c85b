"""A history judged as the service would have judged it: same decision, same memory, same rhythm.

Between two readings a session that is as it was has been so all the time, so what falls due there is judged
at its very moment; of one that has changed meanwhile nothing is known but what the later reading tells, and
it is not taken. Whoever is taken stays in the history and counts as gone until its client uses it again: then
the client would have had to connect anew. That is what a dry run does as well.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from reaper.policy.calm import Calm, Gates
from reaper.policy.decide import decide, questions
from reaper.policy.memory import Memory
from reaper.policy.occasions import Occasions
from reaper.policy.plan import Plan
from reaper.policy.ripe import Ripe
from reaper.policy.ripening import Ripening
from reaper.policy.rules import Action, Rules
from reaper.policy.seen import Mark, Reading, Seen, stands
from reaper.policy.session import CLIENT_BACKEND, Facts, Session, SessionId, Slots, Snapshot
from reaper.policy.spans import SECOND, Instant, Span
from reaper.policy.stretch import Level, Rhythm, Stretch, Taken
from reaper.policy.verdict import Outcome, Result, Spared

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
