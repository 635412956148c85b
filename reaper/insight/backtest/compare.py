"""Two sets of rules over one history: whom only the one would have taken, whom only the other, whom both."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from reaper.insight.backtest.replay import Stretch
from reaper.policy.seen import Reading
from reaper.policy.session import SessionId
from reaper.policy.time import Instant

OLD: Final = "old"
NEW: Final = "new"
BOTH: Final = "both"


class _Act(NamedTuple):
    """A session in one state: taken a little sooner or later it is the same."""

    id: SessionId
    state_change: Instant | None


class Versus:
    """Tells them apart; an act is told once its session has changed or left: the other may still take it."""

    def __init__(self, named: Callable[[str | None], str]) -> None:
        self._named = named
        self._open: dict[_Act, tuple[str, str]] = {}
        self.acts: Counter[str] = Counter()
        self.applications: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def read(self, reading: Reading, old: Stretch, new: Stretch) -> None:
        """Go on to this reading."""
        fresh = set[_Act]()
        for side, stretch in ((OLD, old), (NEW, new)):
            for _, reap, _ in stretch.taken:
                act = _Act(reap.session.id, reap.session.state_change)
                known, _ = self._open.get(act, (side, ""))
                application = self._named(reap.session.identity.application)
                self._open[act] = side if known == side else BOTH, application
                fresh.add(act)
        over = {_Act(was.id, was.state_change) for was, _ in reading.changed if was}
        over |= {_Act(was.id, was.state_change) for was in reading.left}
        for act in (over | fresh) & self._open.keys():
            now = reading.sessions.get(act.id)
            if now is None or now.state_change != act.state_change:
                self._close(act)

    def end(self) -> None:
        """There is no more."""
        for act in list(self._open):
            self._close(act)

    def _close(self, act: _Act) -> None:
        side, application = self._open.pop(act)
        self.acts[side] += 1
        self.applications[application][side] += 1
