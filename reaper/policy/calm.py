"""When nothing can come of another look: the same sessions, the same facts, and nobody was condemned."""

from dataclasses import replace
from typing import Final, NamedTuple

from reaper.policy.plan import Plan
from reaper.policy.rules import Rules
from reaper.policy.session import Slots, Snapshot, Watcher
from reaper.policy.spans import SECOND, Instant
from reaper.policy.verdict import Reap, Spared

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
