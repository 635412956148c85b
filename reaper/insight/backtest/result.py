"""A backtest: one set of rules over the history of one server, and the counts that come of it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.backtest.hindsight import Hindsight
from reaper.insight.backtest.replay import Replay, ReplayStep, Rhythm, SlotUse
from reaper.insight.recorded import RecordedSnapshot
from reaper.policy.rules import Rules
from reaper.policy.session import CLIENT_BACKEND, Session, SessionId, Slots
from reaper.policy.time import SECOND, Instant, Span

MAX_BUCKETS: Final = 480
_FIRST_WIDTH: Final = Span(10 * SECOND)


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
        self.used = max(self.used, other.used)
        self.would = max(self.would, other.would)
        self.terminations.update(other.terminations)


class Timeline:
    """Slots and terminations over time; the width of a bucket doubles when their number reaches its limit."""

    def __init__(self) -> None:
        self.width = _FIRST_WIDTH
        self._began: Instant | None = None
        self.buckets: dict[int, Bucket] = {}
        """By number; a missing number is a time of which nothing is known."""

    def moment(self, number: int) -> Instant:
        """Return when a bucket begins."""
        return Instant((self._began or 0) + number * self.width)

    def bucket(self, at: Instant) -> Bucket:
        """Return the bucket of a moment."""
        if self._began is None:
            self._began = Instant(at // _FIRST_WIDTH * _FIRST_WIDTH)
        while (number := max((at - self._began) // self.width, 0)) >= MAX_BUCKETS:
            self.width = Span(2 * self.width)
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


@dataclass(slots=True, kw_only=True)
class BacktestCounts:
    """What a backtest has counted so far."""

    began: Instant | None = None
    ended: Instant | None = None
    snapshots: int = 0
    observations: int = 0
    """Sessions, each counted once for each snapshot."""
    gaps: int = 0
    gap_time: Span = Span(0)  # noqa: RUF009 (a number)
    slots: Slots | None = None
    peak: SlotUse | None = None
    """When most slots were in use."""
    peak_would: SlotUse | None = None
    """When most slots would have been in use."""
    terminations: Counter[str] = field(default_factory=Counter)
    """By policy."""
    trips: Counter[str] = field(default_factory=Counter)
    """Trips of the safety limit, by policy."""
    uncertain: int = 0
    applications: dict[str, Application] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)


class Backtest:
    """Reads the history of one server under one set of rules."""

    def __init__(self, server: str, rules: Rules, rhythm: Rhythm) -> None:
        self.rules = rules
        self.counts = BacktestCounts()
        self.hindsight = Hindsight(server, self.label)
        self._replay = Replay(rules, rhythm)
        self._gone: dict[SessionId, str] = {}

    def read(self, recorded: RecordedSnapshot) -> ReplayStep:
        """Go on to this snapshot."""
        step = self._replay.read(recorded)
        self.hindsight.read(recorded, step)
        self._count_slots(recorded, step)
        self._count_applications(recorded, step)
        return step

    def end(self) -> None:
        """Count what is left at the end of the history."""
        self.hindsight.end()

    def label(self, application: str | None) -> str:
        """Return the label under which an application is counted."""
        name, known = application or "(unnamed)", self.counts.applications
        if name not in known and len(known) >= MAX_APPLICATIONS:
            name = OTHERS
        known.setdefault(name, Application())
        return name

    def _count_slots(self, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        counts = self.counts
        counts.began = recorded.at if counts.began is None else counts.began
        counts.ended = recorded.at
        counts.snapshots += 1
        counts.observations += len(recorded.sessions)
        counts.uncertain += step.uncertain
        if step.gap is not None:
            counts.gaps += 1
            counts.gap_time = Span(counts.gap_time + step.gap)
        counts.slots = recorded.slots
        for use in step.slots:
            bucket = counts.timeline.bucket(use.at)
            bucket.merge(Bucket(use.used, use.would))
            if counts.peak is None or use.used > counts.peak.used:
                counts.peak = use
            if counts.peak_would is None or use.would > counts.peak_would.would:
                counts.peak_would = use
        for at, reap, again in step.terminations:
            if not again:
                counts.terminations[reap.policy.name] += 1
                counts.timeline.bucket(at).terminations[reap.policy.name] += 1
        counts.trips.update(trip.policy.name for _, trip in step.trips)

    def _count_applications(self, recorded: RecordedSnapshot, step: ReplayStep) -> None:
        touched = set[str]()
        for was, now in recorded.changed:
            if was is None or was.identity != now.identity:
                touched |= {self._count(was, -1), self._count(now, +1)}
        touched |= {self._count(was, -1) for was in recorded.left}
        for who in step.back:
            if label := self._gone.pop(who, ""):
                self.counts.applications[label].gone -= 1
                touched.add(label)
        for _, reap, again in step.terminations:
            label = self.label(reap.session.identity.application)
            application = self.counts.applications[label]
            application.terminated += not again
            if reap.session.id in self._replay.gone and reap.session.id not in self._gone:
                self._gone[reap.session.id] = label
                application.gone += 1
        for application in (self.counts.applications[label] for label in touched if label):
            application.peak = max(application.peak, application.sessions)
            application.peak_would = max(application.peak_would, application.sessions - application.gone)

    def _count(self, session: Session | None, by: int) -> str:
        """Count one more or one less; return its application."""
        if session is None or session.kind != CLIENT_BACKEND:
            return ""
        label = self.label(session.identity.application)
        self.counts.applications[label].sessions += by
        return label
