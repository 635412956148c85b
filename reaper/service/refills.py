"""Detects groups that replace their terminated sessions at once, and pauses them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from reaper.policy.plan import Candidate, Outcome, Result
from reaper.policy.refill_guard import Group, PausedGroup, RefillCounts, RefillGuard, refill
from reaper.policy.time import Timestamp
from reaper.postgres.watcher import SessionWatcher
from reaper.service.cycle import Cycle

_MOST_GROUPS: Final = 100
_MOST_ENDS: Final = 200
"""Terminations of one group that are not counted yet."""


@dataclass(slots=True, kw_only=True)
class _GroupCounts:
    """The terminations of one group, and the sessions that may have replaced them."""

    refill_guard: RefillGuard
    ends: list[Timestamp] = field(default_factory=list)
    """The terminations for which new sessions are not counted yet."""
    came_and_went: list[Timestamp] = field(default_factory=list)
    """The starts of sessions that were terminated themselves: they may have been replacements."""
    before: int = 0
    """The number of new sessions in the same time before the first termination: the usual number."""
    last_end: Timestamp = Timestamp(0)  # noqa: RUF009 (a number)
    counted: Timestamp = Timestamp(0)  # noqa: RUF009
    counts: RefillCounts = RefillCounts()  # noqa: RUF009 (immutable)


class RefillDetector:
    """The groups of one server; it outlives a connection."""

    def __init__(self) -> None:
        self._groups: dict[Group, _GroupCounts] = {}
        self.paused: Mapping[Group, PausedGroup] = MappingProxyType({})
        """The groups that the next cycle skips."""

    async def cycled(self, cycle: Cycle, watcher: SessionWatcher) -> list[PausedGroup]:
        """Count the new sessions after the terminations of this and earlier cycles; raises Lost."""
        now = cycle.snapshot.at
        if cycle.clock_step is not None:
            self._groups.clear()
        taken = _terminated(cycle.settled)
        for group in taken.keys() & self._groups.keys():
            went = self._groups[group].came_and_went
            self._groups[group].came_and_went = [*went, *taken[group].began][-_MOST_ENDS:]
        new = self._counted(now, await self._new_sessions(self._due(now), watcher))
        if taken:
            await self._note(taken, watcher)
        if new or self.paused:
            self._update_paused(now)
        return new

    def _due(self, now: Timestamp) -> dict[Group, Timestamp]:
        """Groups in which a terminated session may have been replaced by now, and from when that counts."""
        return {
            group: case.ends[0]
            for group, case in self._groups.items()
            if case.ends and case.ends[0] + case.refill_guard.within <= now
        }

    async def _new_sessions(
        self, since: Mapping[Group, Timestamp], watcher: SessionWatcher
    ) -> dict[Group, list[Timestamp]] | None:
        """The starts of the new sessions of each group; None if the statement failed."""
        if not since:
            return {}
        roles = {group.identity.role or "" for group in since}
        found = await watcher.newcomers(roles, min(since.values()))
        if found is None:
            return None
        came = {group: list[Timestamp]() for group in since}
        for newcomer in found:
            for group in since:
                if group.identity == newcomer.identity:
                    came[group].append(newcomer.began)
        return came

    def _counted(self, now: Timestamp, came: Mapping[Group, list[Timestamp]] | None) -> list[PausedGroup]:
        new = []
        for group, moments in (came or {}).items():
            case = self._groups[group]
            ends = [end for end in case.ends if end + case.refill_guard.within <= now]
            newcomers = [each for each in (*moments, *case.came_and_went) if each > case.counted]
            found = refill(ends, newcomers, case.before, case.refill_guard)
            was = case.counts
            case.counts = was.after(len(ends), found.places, group=group, guard=case.refill_guard, now=now)
            case.ends, case.counted = case.ends[len(ends) :], max(case.counted, found.counted)
            case.came_and_went = [each for each in case.came_and_went if each > case.counted][-_MOST_ENDS:]
            if case.counts.paused and case.counts.pauses > was.pauses:
                # Terminations that are not counted yet are of the same time: counted later, they would start
                # a second, longer pause.
                case.ends, case.came_and_went = [], []
                new.append(case.counts.paused)
        return new

    async def _note(self, taken: Mapping[Group, "_Terminated"], watcher: SessionWatcher) -> None:
        """Note terminations; of a group without recent ones, also the usual number of new sessions."""
        quiet: dict[Group, Timestamp] = {}
        for group, one in taken.items():
            case = self._groups.get(group)
            if case is None or one.ends[0] - case.last_end > 2 * case.refill_guard.within:
                quiet[group] = Timestamp(one.ends[0] - one.refill_guard.within)
        came = await self._new_sessions(quiet, watcher)
        for group, one in taken.items():
            if group in quiet and came is None:
                continue
            case = self._group(group, one.refill_guard)
            if case.counts.paused and case.counts.paused.until > one.ends[-1]:
                continue  # terminated in the cycle in which the pause began
            if came and group in quiet:
                # The sessions just terminated may have been among the new ones.
                before = [*came[group], *one.began]
                case.before = sum(quiet[group] <= each < one.ends[0] for each in before)
            case.ends = [*case.ends, *one.ends][:_MOST_ENDS]
            case.last_end = case.ends[-1]

    def _group(self, group: Group, refill_guard: RefillGuard) -> _GroupCounts:
        case = self._groups.pop(group, None) or _GroupCounts(refill_guard=refill_guard)
        case.refill_guard = refill_guard
        self._groups[group] = case  # last: the group that was terminated from longest ago is forgotten first
        if len(self._groups) > _MOST_GROUPS:
            self._groups.pop(next(iter(self._groups)))
        return case

    def _update_paused(self, now: Timestamp) -> None:
        paused = {group: case.counts.paused for group, case in self._groups.items()}
        self.paused = MappingProxyType(
            {group: one for group, one in paused.items() if one and one.until > now}
        )


@dataclass(slots=True, kw_only=True)
class _Terminated:
    """The sessions of one group that one cycle has terminated."""

    refill_guard: RefillGuard
    ends: list[Timestamp] = field(default_factory=list)
    began: list[Timestamp] = field(default_factory=list)


def _terminated(settled: Iterable[tuple[Candidate, Outcome]]) -> dict[Group, _Terminated]:
    """The sessions of each group that were terminated, in order of time."""
    found: dict[Group, _Terminated] = {}
    for candidate, outcome in settled:
        policy, session = candidate.policy, candidate.session
        # Only TERMINATED: a SIGNALLED session exits after the last check, at an unknown time, so that a new
        # session can be assigned to neither its exit nor that of another one.
        ended = outcome.result is Result.TERMINATED and outcome.act
        if not ended or policy.refill_guard is None or session.identity.role is None:
            continue
        group = Group(policy.name, session.identity)
        one = found.setdefault(group, _Terminated(refill_guard=policy.refill_guard))
        one.ends.append(ended.signalled)
        one.began.append(session.id.backend_start)
    for one in found.values():
        one.ends.sort()
    return found
