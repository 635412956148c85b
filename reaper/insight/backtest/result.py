"""A backtest: one set of rules over the history of one server, and the counts that come of it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.backtest.hindsight import Hindsight
from reaper.insight.backtest.replay import Replay, ReplayStep, Rhythm, SlotUse
from reaper.insight.recorded import RecordedSnapshot
from reaper.policy.rules import Rules
from reaper.policy.session import CLIENT_BACKEND, Session, SessionId, Slots
from reaper.policy.time import SECOND, Duration, Timestamp

MAX_BUCKETS: Final = 480
_FIRST_WIDTH: Final = Duration(10 * SECOND)


@dataclass(slots=True)
class Bucket:
    """One bucket of a timeline."""

    used: int = 0
    """The most slots that were in use."""
    would: int = 0
    """The most slots that would have been in use."""
    terminations: Counter[str] = field(default_factory=Counter)
    """By policy."""

    def merge(self, other: "Bucket") -> None:
        """Add another bucket to this one."""
        self.used, self.would = max(self.used, other.used), max(self.would, other.would)
        self.terminations.update(other.terminations)


class Timeline:
    """Slots and terminations over time; the width of a bucket doubles when their number reaches its limit."""

    def __init__(self) -> None:
        self.width = _FIRST_WIDTH
        self._began: Timestamp | None = None
        self.buckets: dict[int, Bucket] = {}
        """By number; a missing number is a time of which nothing is known."""

    def moment(self, number: int) -> Timestamp:
        """Return when a bucket begins."""
        return Timestamp((self._began or 0) + number * self.width)

    def bucket(self, at: Timestamp) -> Bucket:
        """Return the bucket of a moment."""
        if self._began is None:
            self._began = Timestamp(at // _FIRST_WIDTH * _FIRST_WIDTH)
        while (number := max((at - self._began) // self.width, 0)) >= MAX_BUCKETS:
            self.width = Duration(2 * self.width)
            narrow, self.buckets = self.buckets, {}
            for each, bucket in narrow.items():
                self.buckets.setdefault(each // 2, Bucket()).merge(bucket)
        return self.buckets.setdefault(number, Bucket())


MAX_APPLICATIONS: Final = 4_096
OTHERS: Final = "(others)"
"""The label of all further applications: a client may use a new name for each connection."""


@dataclass(slots=True)
class Application:
    """The sessions of one application."""

    sessions: int = 0
    gone: int = 0
    terminated: int = 0
    peak: int = 0
    peak_would: int = 0


class Backtest:
    """Reads the history of one server under one set of rules, and counts."""

    def __init__(self, server: str, rules: Rules, rhythm: Rhythm) -> None:
        self.rules = rules
        self.hindsight = Hindsight(server, self.label)
        self.began: Timestamp | None = None
        self.ended: Timestamp | None = None
        self.snapshots = 0
        self.observations = 0
        """Sessions, each counted once for each snapshot."""
        self.gaps = 0
        self.gap_time = Duration(0)
        self.slots: Slots | None = None
        self.peak: SlotUse | None = None
        """When most slots were in use."""
        self.peak_would: SlotUse | None = None
        """When most slots would have been in use."""
        self.terminations = Counter[str]()
        """By policy, as the trips of safety limits."""
        self.trips = Counter[str]()
        self.uncertain = 0
        self.applications: dict[str, Application] = {}
        self.timeline = Timeline()
        self._replay = Replay(rules, rhythm)
        self._gone: dict[SessionId, str] = {}

    def read(self, recorded: RecordedSnapshot) -> ReplayStep:
        """Go on to this snapshot."""
        step = self._replay.read(recorded)
        self.hindsight.read(recorded, step)
        self._count_step(recorded, step)
        self._count_applications(recorded, step)
        return step

    def end(self) -> None:
        """Count what is left at the end of the history."""
        self.hindsight.end()

    def label(self, application: str | None) -> str:
        """Return the label under which an application is counted."""
        name, known = application or "(unnamed)", self.applications
        if name not in known and len(known) >= MAX_APPLICATIONS:
            name = OTHERS
        known.setdefault(name, Application())
        return name

    def _count_step(self, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        self.began = recorded.at if self.began is None else self.began
        self.ended = recorded.at
        self.snapshots += 1
        self.observations += len(recorded.sessions)
        self.uncertain += step.uncertain
        self.gaps += step.gap is not None
        self.gap_time = Duration(self.gap_time + (step.gap or 0))
        self.slots = recorded.about.slots
        for use in step.slots:
            self.timeline.bucket(use.at).merge(Bucket(use.used, use.would))
            if self.peak is None or use.used > self.peak.used:
                self.peak = use
            if self.peak_would is None or use.would > self.peak_would.would:
                self.peak_would = use
        for at, candidate, again in step.terminations:
            if not again:
                self.terminations[candidate.policy.name] += 1
                self.timeline.bucket(at).terminations[candidate.policy.name] += 1
        self.trips.update(trip.policy.name for _, trip in step.trips)

    def _count_applications(self, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        touched = [self._count(was, -1) for was in recorded.left]
        for was, now in recorded.changed:
            if was is None or was.identity != now.identity:
                touched += [self._count(was, -1), self._count(now, +1)]
        for label in [self._gone.pop(who) for who in step.back if who in self._gone]:
            self.applications[label].gone -= 1
            touched.append(self.applications[label])
        for _, candidate, again in step.terminations:
            label = self.label(candidate.session.identity.application)
            application = self.applications[label]
            application.terminated += not again
            if candidate.session.id in self._replay.gone and candidate.session.id not in self._gone:
                self._gone[candidate.session.id] = label
                application.gone += 1
        for each in touched:
            if each:
                each.peak = max(each.peak, each.sessions)
                each.peak_would = max(each.peak_would, each.sessions - each.gone)

    def _count(self, session: Session | None, by: int) -> Application | None:
        """Count one session more or less; return its application."""
        if session is None or session.kind != CLIENT_BACKEND:
            return None
        application = self.applications[self.label(session.identity.application)]
        application.sessions += by
        return application
