"""Decides over a recorded history as the service would have decided: same decision, same memory, same rhythm.

A session that shows the same state in two snapshots has been in it all the time, so it is decided on at the
very moment at which it falls due. A session that changed in between is known from the later snapshot alone,
and is not terminated. A terminated session stays in the history, as under a dry run, and its slot counts as
free until its client uses it again: then the client would have had to connect anew.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from reaper.insight.recorded import CycleMark, RecordedSnapshot, state_since, unused_since
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Outcome, Plan, Result, SafetyLimitTrip, SkipReason, unknown
from reaper.policy.rules import Action, Mode, Rules
from reaper.policy.session import CLIENT_BACKEND, Session, SessionId, Snapshot
from reaper.policy.time import SECOND, Duration, Timestamp


class Rhythm(NamedTuple):
    """The times between cycles of the service."""

    interval: Duration
    precision: Duration


class ReplayTermination(NamedTuple):
    """A session that would have been terminated."""

    at: Timestamp
    candidate: Candidate
    again: bool = False
    """The same session in the same state as before: after a gap the replay begins anew."""


class SlotUse(NamedTuple):
    """The slots in use at one moment, and those that would have been in use."""

    at: Timestamp
    used: int
    would: int


@dataclass(slots=True, kw_only=True)
class ReplayStep:
    """What would have happened from one snapshot of the history to the next."""

    gap: Duration | None = None
    """The length of a gap before this snapshot; all sessions are new after it."""
    terminations: list[ReplayTermination] = field(default_factory=list)
    trips: list[tuple[Timestamp, SafetyLimitTrip]] = field(default_factory=list)
    slots: list[SlotUse] = field(default_factory=list)
    back: list[SessionId] = field(default_factory=list)
    """Sessions that no longer count as terminated: used again, or closed."""
    uncertain: int = 0
    """Sessions that changed or left after they had fallen due: the service may have terminated them."""


class DueQueue:
    """The sessions of one server by the earliest moment at which a policy could match them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._heap: list[tuple[Timestamp, SessionId]] = []
        self._queued: dict[SessionId, Timestamp] = {}

    def expect(self, session: Session) -> None:
        """Queue a session as it is now; if it is queued for an earlier moment already, that one stays."""
        matching = self._rules.matching(session)
        if matching.policies and session.state_change is not None:
            self.put(session.id, Timestamp(session.state_change + matching.soonest))

    def put(self, who: SessionId, moment: Timestamp) -> None:
        """Queue a session for this moment."""
        queued = self._queued.get(who)
        if queued is None or moment < queued:
            self._queued[who] = moment
            heappush(self._heap, (moment, who))

    def remove(self, who: SessionId) -> None:
        """Forget a session that has left."""
        self._queued.pop(who, None)
        if len(self._heap) > _MAX_STALE + 4 * len(self._queued):
            self._heap = [(moment, each) for each, moment in self._queued.items()]
            heapify(self._heap)

    def pop(self, until: Timestamp, sessions: Mapping[SessionId, Session]) -> Iterator[Session]:
        """Take out the sessions that could fall due by this moment."""
        while self._heap and self._heap[0][0] <= until:
            moment, who = heappop(self._heap)
            if self._queued.get(who) == moment:
                del self._queued[who]
                session = sessions[who]
                # It may have been used since it was queued.
                self.expect(session)
                if self._queued.get(who, until + 1) <= until:
                    del self._queued[who]
                    yield session

    def moments(self, session: Session) -> list[Timestamp]:
        """Return the moments at which policies match the session if it stays as it is."""
        policies = () if unknown(session) else self._rules.matching(session).policies
        return sorted({due for policy in policies if (due := policy.match.due(session)) is not None})


_MAX_STALE: Final = 4_096
_DRY_RUN: Final = Outcome(result=Result.DRY_RUN)
_GAP: Final = Duration(60 * SECOND)
_GAP_INTERVALS: Final = 3


class Replay:
    """Decides over the snapshots of one server, one after the other."""

    def __init__(self, rules: Rules, rhythm: Rhythm) -> None:
        self.rules = rules
        self.rhythm = rhythm
        self.counts_all = any(policy.max_sessions for policy in rules.enabled)
        """True if a policy counts sessions that are not due."""
        self._before: RecordedSnapshot | None = None
        self._restart()

    def _restart(self) -> None:
        self.queue = DueQueue(self.rules)
        self.due: dict[str, dict[SessionId, Session]] = {policy.name: {} for policy in self.rules.enabled}
        """The sessions that have reached the ages of each policy."""
        self.memory = Memory()
        self.gone: set[SessionId] = set()
        """Sessions that were terminated, and were not used since."""
        self.finished: dict[SessionId, Session] = {}
        """Those of them that no other policy can still match: they are left out of decisions."""
        self.last: Timestamp | None = None
        """The last cycle."""
        self.is_second_due = False
        """True if a session waits for a second cycle that must agree."""

    def read(self, recorded: RecordedSnapshot) -> ReplayStep:
        """Go on to this snapshot."""
        step, before = ReplayStep(), self._before
        if before is None or _is_broken(before, recorded):
            step.gap = None if before is None else Duration(max(recorded.at - before.at, 0))
            step.back = list(self.gone)
            self._restart()
            for session in recorded.sessions.values():
                self.queue.expect(session)
            before = recorded
        else:
            self._apply_changes(before.at, recorded, step)
        _CyclesBetween(self, before, recorded, step).run()
        self._before = recorded
        return step

    def _apply_changes(self, after: Timestamp, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        for was, now in recorded.changed:
            if was is None:
                self.queue.expect(now)
            elif not unused_since(was, now):
                self.queue.expect(now)
                self.drop(now.id, step)
                moments = (now.state_change, now.query_start)
                later = (each for each in moments if each and each > (was.state_change or 0))
                until = min((*later, recorded.at))
                step.uncertain += self._may_have_matched(was, after, until, recorded)
        for was in recorded.left:
            self.queue.remove(was.id)
            self.drop(was.id, step)
            step.uncertain += self._may_have_matched(was, after, recorded.at, recorded)

    def take_due(self, session: Session, at: Timestamp) -> None:
        """Note the policies for which a session has reached all ages at this moment."""
        policies = () if session.id in self.finished else self.rules.matching(session).policies
        for policy in policies:
            due = policy.match.due(session)
            if due is not None and due <= at:
                self.due[policy.name][session.id] = session

    def candidates(self, at: Snapshot) -> dict[SessionId, Session]:
        """Return the sessions that are due under a policy that does not rest, and those terminated before."""
        found = dict[SessionId, Session]()
        for policy in self.rules.enabled:
            sessions, before = self.due[policy.name], self.memory.dry_run_ids
            rests = policy.rests(at)
            found.update((who, one) for who, one in sessions.items() if not rests or who in before)
        return found

    def drop(self, who: SessionId, step: ReplayStep) -> None:
        """Forget how a session was: it was used or closed."""
        for sessions in (*self.due.values(), self.finished):
            sessions.pop(who, None)
        if who in self.gone:
            self.gone.remove(who)
            step.back.append(who)

    def _may_have_matched(
        self, was: Session, after: Timestamp, until: Timestamp, recorded: RecordedSnapshot
    ) -> bool:
        """Return True if the session fell due before it changed, and no partial snapshot shows it then."""
        matching = self.rules.matching(was)
        if not matching.policies or was.state_change is None or was.state_change + matching.soonest > until:
            return False
        policies = (policy for policy in matching.policies if policy.name not in matching.allowed)
        acting = (policy for policy in policies if after < (policy.match.due(was) or after) <= until)
        known = (one for partial in recorded.partial for one in partial.sessions if one.id == was.id)
        matched = any(not policy.rests(recorded.about) for policy in acting)
        return matched and not any(unused_since(was, one) for one in known)


def _is_broken(before: RecordedSnapshot, now: RecordedSnapshot) -> bool:
    """Return True if snapshots are missing in between, or the server's clock was set."""
    gap = now.at - before.at > max(_GAP, _GAP_INTERVALS * now.every)
    return gap or now.counted_from != before.counted_from


@dataclass(slots=True)
class _Stay:
    """A session in one state, for as long as that is known, and the moments at which policies match it."""

    session: Session
    until: Timestamp | None
    moments: list[Timestamp]


class _CyclesBetween:
    """The cycles from one snapshot to the next."""

    def __init__(
        self, replay: Replay, before: RecordedSnapshot, recorded: RecordedSnapshot, step: ReplayStep
    ) -> None:
        self._replay = replay
        self._recorded = recorded
        self._step = step
        self._begin = before.at
        self._base = CycleMark(before.at, before.about.slots.used)
        self._stays = list(self._find_stays())

    def _find_stays(self) -> Iterator[_Stay]:
        queue, recorded = self._replay.queue, self._recorded
        for session in list(queue.pop(recorded.at, recorded.sessions)):
            moments = queue.moments(session)
            yield _Stay(session, None, moments)
        for partial in recorded.partial:
            for session in partial.sessions:
                now = recorded.sessions.get(session.id)
                if now is None or not unused_since(session, now):
                    moments = [each for each in queue.moments(session) if each <= partial.at]
                    yield _Stay(session, partial.at, moments)

    def run(self) -> None:
        """Run a cycle at every moment at which the service would have run one."""
        replay, recorded = self._replay, self._recorded
        marks = (mark for mark in recorded.cycles if mark.at > self._begin)
        mark = next(marks, None)
        while (at := self._next(mark)) <= recorded.at:
            if mark is not None and mark.at == at:
                self._base, mark = mark, next(marks, None)
            if at == recorded.at:
                self._refresh()
            self._cycle(at)
            replay.last = at
        self._let_go(None)
        self._refresh()
        for stay in self._stays:
            if stay.until is None and stay.moments:
                replay.queue.put(stay.session.id, stay.moments[0])
        self._note_slots(recorded.at, recorded.about.slots.used)

    def _next(self, mark: CycleMark | None) -> Timestamp:
        # A recorded cycle about as early as the planned one is the planned one.
        planned = self._planned()
        return mark.at if mark is not None and mark.at <= planned + self._replay.rhythm.precision else planned

    def _planned(self) -> Timestamp:
        """Return when the service would wake, by the deadlines that its last cycle could know."""
        last, (interval, precision) = self._replay.last, self._replay.rhythm
        if last is None:
            return self._recorded.at
        if self._replay.is_second_due:
            return Timestamp(last + precision)
        due = min(
            (
                moment
                for stay in self._stays
                if state_since(stay.session) <= last
                for moment in stay.moments
                if moment > last
            ),
            default=last + interval,
        )
        return Timestamp(last + min(max(due - last, precision), interval))

    def _cycle(self, at: Timestamp) -> None:
        replay = self._replay
        self._let_go(at)
        self._take_due(at)
        used = self._recorded.about.slots.used if at == self._recorded.at else self._base.used
        if self._base.at == at:
            self._note_slots(at, used)
        snapshot = self._snapshot(at, max(used - len(replay.finished), 0))
        last = replay.last
        seen = frozenset(
            one.id for one in snapshot.sessions if last is not None and one.id.backend_start <= last
        )
        plan = decide(snapshot=snapshot, rules=replay.rules, memory=replace(replay.memory, seen=seen))
        replay.is_second_due = any(skip.by is SkipReason.FIRST_SIGHTING for skip in plan.matched_skips)
        self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> None:
        replay, step, at = self._replay, self._step, plan.at
        candidates = (*plan.candidates, *plan.dry_run_candidates)
        new = [trip for trip in plan.trips if trip.policy.name not in replay.memory.tripped]
        step.trips += [(at, trip) for trip in new]
        step.terminations += [ReplayTermination(at, candidate) for candidate in candidates]
        settled = [(candidate, _DRY_RUN) for candidate in candidates]
        replay.memory = replay.memory.after(plan.snapshot, settled, plan.trips)
        for candidate in candidates:
            session = candidate.session
            if candidate.action is Action.TERMINATE and session.kind == CLIENT_BACKEND:
                replay.gone.add(session.id)
                # A dry-run policy does not hide a session from an enforcing one.
                if candidate.mode is Mode.ENFORCE or not replay.rules.enforcing:
                    replay.finished[session.id] = session
                    for sessions in replay.due.values():
                        sessions.pop(session.id, None)

    def _snapshot(self, at: Timestamp, used: int) -> Snapshot:
        """Return the sessions that are due, as the prefilter does; all of them if a policy counts them."""
        replay, recorded = self._replay, self._recorded
        empty = replace(recorded.about, at=at, slots=replace(recorded.about.slots, used=used))
        candidates = replay.candidates(empty)
        shown = {**self._all_sessions(at), **candidates} if replay.counts_all else candidates
        clients = sum(session.kind == CLIENT_BACKEND for session in shown.values())
        return replace(empty, sessions=tuple(shown.values()), left_out=max(used - clients, 0))

    def _all_sessions(self, at: Timestamp) -> Mapping[SessionId, Session]:
        # The state before the one that the later snapshot shows is not known.
        return {
            who: session if state_since(session) <= at else replace(session, state=None)
            for who, session in self._recorded.sessions.items()
            if who.backend_start <= at and who not in self._replay.finished
        }

    def _take_due(self, at: Timestamp) -> None:
        for stay in self._stays:
            if stay.moments and stay.moments[0] <= at and (stay.until is None or at <= stay.until):
                while stay.moments and stay.moments[0] <= at:
                    del stay.moments[0]
                self._replay.take_due(stay.session, at)

    def _let_go(self, at: Timestamp | None) -> None:
        """Drop sessions that are no longer known to be in their state; None is the end of the walk."""
        for stay in self._stays:
            ended = stay.until is not None and (at is None or stay.until < at)
            due = (*self._replay.due.values(), self._replay.finished)
            if ended and any(sessions.get(stay.session.id) is stay.session for sessions in due):
                self._replay.drop(stay.session.id, self._step)

    def _refresh(self) -> None:
        """Take over what has changed in sessions that were not used: the xid age, the wait event."""
        for sessions in self._replay.due.values():
            sessions.update((now.id, now) for _, now in self._recorded.changed if now.id in sessions)

    def _note_slots(self, at: Timestamp, used: int) -> None:
        self._step.slots.append(SlotUse(at, used, max(used - len(self._replay.gone), 0)))
