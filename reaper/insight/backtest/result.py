"""A backtest: one set of rules over the history of one server, and what there is to tell of it.

Memory does not grow with the length of the history: what is kept is counts, and what is drawn has a bounded
number of steps.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from reaper.insight.backtest.hindsight import Hindsight
from reaper.insight.backtest.replay import Level, Replay, Rhythm, Stretch
from reaper.policy.rules import Rules
from reaper.policy.seen import Reading, Seen
from reaper.policy.session import CLIENT_BACKEND, SessionId, Slots
from reaper.policy.time import SECOND, Instant, Span

MOST_STEPS: Final = 480
_FIRST_STEP: Final = Span(10 * SECOND)


@dataclass(slots=True)
class Step:
    """What was seen in one step of time."""

    used: int = 0
    """The most slots that were used."""
    would: int = 0
    """The most slots that would have been used."""
    taken: dict[str, int] = field(default_factory=dict)
    """How many each policy would have taken."""

    def merge(self, other: "Step") -> None:
        """Both steps in one."""
        self.used = max(self.used, other.used)
        self.would = max(self.would, other.would)
        for policy, count in other.taken.items():
            self.taken[policy] = self.taken.get(policy, 0) + count


class Course:
    """Slots and terminations over time."""

    def __init__(self) -> None:
        self.width = _FIRST_STEP
        self._began: Instant | None = None
        self.steps: dict[int, Step] = {}
        """By their number; a number without a step is a time of which nothing is known."""

    def level(self, at: Instant, used: int, would: int) -> None:
        """So many slots at this moment."""
        step = self._step(at)
        step.used = max(step.used, used)
        step.would = max(step.would, would)

    def taken(self, at: Instant, policy: str) -> None:
        """A termination at this moment."""
        step = self._step(at)
        step.taken[policy] = step.taken.get(policy, 0) + 1

    def moment(self, number: int) -> Instant:
        """When a step begins."""
        return Instant((self._began or 0) + number * self.width)

    def _step(self, at: Instant) -> Step:
        if self._began is None:
            self._began = Instant(at // _FIRST_STEP * _FIRST_STEP)
        while (number := max((at - self._began) // self.width, 0)) >= MOST_STEPS:
            self._widen()
        found = self.steps.get(number)
        if found is None:
            found = self.steps[number] = Step()
        return found

    def _widen(self) -> None:
        self.width = Span(2 * self.width)
        merged = dict[int, Step]()
        for number, step in self.steps.items():
            if number // 2 in merged:
                merged[number // 2].merge(step)
            else:
                merged[number // 2] = step
        self.steps = merged


MOST_APPLICATIONS: Final = 4_096
OTHERS: Final = "(others)"
"""All applications beyond so many: a client may call itself by another name each time."""


@dataclass(slots=True)
class Application:
    """One application's sessions."""

    now: int = 0
    gone: int = 0
    taken: int = 0
    peak: int = 0
    peak_would: int = 0


@dataclass(slots=True, kw_only=True)
class Findings:
    """What a backtest has found so far."""

    server: str
    began: Instant | None = None
    ended: Instant | None = None
    readings: int = 0
    observations: int = 0
    """Sessions, each counted once for each reading."""
    looks: int = 0
    gaps: int = 0
    unknown: Span = Span(0)  # noqa: RUF009 (a number)
    """How long nothing is known of."""
    slots: Slots | None = None
    peak: Level | None = None
    """When most slots were used, and how many would have been then."""
    peak_would: Level | None = None
    """When most slots would have been used."""
    taken: Counter[str] = field(default_factory=Counter)
    """By policy."""
    brakes: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0
    applications: dict[str, Application] = field(default_factory=dict)
    course: Course = field(default_factory=Course)


class Backtest:
    """Reads a history, and tells what these rules would have done."""

    def __init__(self, server: str, rules: Rules, rhythm: Rhythm) -> None:
        self.rules = rules
        self.findings = Findings(server=server)
        self.hindsight = Hindsight(server, self.name)
        self._replay = Replay(rules, rhythm)
        self._gone: dict[SessionId, str] = {}

    def read(self, reading: Reading) -> Stretch:
        """Go on to this reading."""
        stretch = self._replay.read(reading)
        self.hindsight.read(reading, stretch)
        self._measure(reading, stretch)
        self._count(reading, stretch)
        return stretch

    def end(self) -> None:
        """There is no more."""
        self.hindsight.end()

    def _measure(self, reading: Reading, stretch: Stretch) -> None:
        found = self.findings
        found.began = reading.at if found.began is None else found.began
        found.ended = reading.at
        found.readings += 1
        found.observations += len(reading.sessions)
        found.looks += stretch.looks
        found.uncertain += stretch.uncertain
        if stretch.gap is not None:
            found.gaps += 1
            found.unknown = Span(found.unknown + stretch.gap)
        found.slots = reading.slots
        for level in stretch.levels:
            found.course.level(*level)
            if found.peak is None or level.used > found.peak.used:
                found.peak = level
            if found.peak_would is None or level.would > found.peak_would.would:
                found.peak_would = level
        for at, reap, again in stretch.taken:
            found.taken[reap.policy.name] += not again
            if not again:
                found.course.taken(at, reap.policy.name)
        found.brakes.update(trip.policy.name for _, trip in stretch.trips)

    def _count(self, reading: Reading, stretch: Stretch) -> None:
        """Sessions of each application, as it was and as it would have been."""
        touched = set[str]()
        for was, now in reading.changed:
            if was is None or was.identity is not now.identity:
                touched |= {self._step(was, -1), self._step(now, +1)}
        for was in reading.left:
            touched.add(self._step(was, -1))
        for who in stretch.back:
            name = self._gone.pop(who, None)
            if name is not None:
                self.findings.applications[name].gone -= 1
                touched.add(name)
        for _, reap, again in stretch.taken:
            name = self.name(reap.session.identity.application)
            self.findings.applications[name].taken += not again
            if reap.session.id in self._replay.gone and reap.session.id not in self._gone:
                self._gone[reap.session.id] = name
                self.findings.applications[name].gone += 1
        for name in touched - {""}:
            one = self.findings.applications[name]
            one.peak = max(one.peak, one.now)
            one.peak_would = max(one.peak_would, one.now - one.gone)

    def _step(self, seen: Seen | None, by: int) -> str:
        """One more or one less; which application that was."""
        if seen is None or seen.kind != CLIENT_BACKEND:
            return ""
        name = self.name(seen.identity.application)
        self.findings.applications[name].now += by
        return name

    def name(self, application: str | None) -> str:
        """What to call an application: its name, or that it is one of very many."""
        name = application or "(unnamed)"
        applications = self.findings.applications
        if name not in applications:
            name = name if len(applications) < MOST_APPLICATIONS else OTHERS
            applications.setdefault(name, Application())
        return name
