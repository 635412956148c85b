"""Two policy files over one history: the sessions that only one of them, or both, would have terminated."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from reaper.insight.backtest.replay import ReplayStep
from reaper.insight.recorded import RecordedSnapshot
from reaper.policy.session import SessionId
from reaper.policy.time import Timestamp

OLD: Final = "old"
NEW: Final = "new"
BOTH: Final = "both"


_State = tuple[SessionId, Timestamp | None]
"""A session and the time of its last change: terminated a little sooner or later it is the same state."""


class Comparison:
    """Counts terminations by side; one is counted when its state ends, because the other side may follow."""

    def __init__(self, label: Callable[[str | None], str]) -> None:
        self._label = label
        self._open: dict[_State, tuple[str, str]] = {}
        self.counts: Counter[str] = Counter()
        self.applications: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def read(self, recorded: RecordedSnapshot, old: ReplayStep, new: ReplayStep) -> None:
        """Go on to this snapshot."""
        for side, step in ((OLD, old), (NEW, new)):
            for termination in step.terminations:
                session = termination.candidate.session
                state = session.id, session.state_change
                known, label = self._open.get(state, (side, self._label(session.identity.application)))
                self._open[state] = side if known == side else BOTH, label
        for who, since in list(self._open):
            now = recorded.sessions.get(who)
            if now is None or now.state_change != since:
                self._close((who, since))

    def end(self) -> None:
        """Count what is left at the end of the history."""
        for state in list(self._open):
            self._close(state)

    def _close(self, state: _State) -> None:
        side, label = self._open.pop(state)
        self.counts[side] += 1
        self.applications[label][side] += 1
