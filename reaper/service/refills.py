"""Which groups refill at once whatever is taken from them: looked at after terminations, and only then."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from reaper.policy.plan import Candidate, Outcome, Result
from reaper.policy.refill_guard import Group, PausedGroup, RefillCounts, RefillGuard, refill
from reaper.policy.rules import Policy
from reaper.policy.time import Timestamp
from reaper.postgres.watcher import Newcomer
from reaper.service.cycle import Cycle

_MOST_GROUPS: Final = 100
_MOST_ENDS: Final = 200
_NOBODY: Final[Mapping[Group, PausedGroup]] = MappingProxyType({})


class Meeting(Protocol):
    """Looks at newcomers."""

    async def newcomers(self, roles: Collection[str], since: Timestamp) -> Sequence[Newcomer] | None:
        """The sessions of these roles that came since then."""


@dataclass(slots=True, kw_only=True)
class _Case:
    """One group from which something was taken."""

    policy: Policy
    refill_guard: RefillGuard
    ends: list[Timestamp] = field(default_factory=list)
    """Of which it is not known yet whether somebody took their place."""
    came_and_went: list[Timestamp] = field(default_factory=list)
    """When those began who were ended themselves: they may have taken a place before."""
    before: int = 0
    """How many came as long before the first of them."""
    last_end: Timestamp = Timestamp(0)  # noqa: RUF009 (a number)
    counted: Timestamp = Timestamp(0)  # noqa: RUF009
    counts: RefillCounts = RefillCounts()  # noqa: RUF009 (immutable)


class RefillDetector:
    """The groups of one server; of longer life than a connection."""

    def __init__(self) -> None:
        self._cases: dict[Group, _Case] = {}
        self.paused = _NOBODY
        """Those that the next cycle spares."""

    async def cycled(self, cycle: Cycle, meeting: Meeting) -> list[PausedGroup]:
        """Count the new sessions after the terminations of this and earlier cycles; raises Lost."""
        now = cycle.snapshot.at
        if cycle.clock_step is not None:
            self._cases.clear()
        taken = _taken(cycle.settled)
        for group in taken.keys() & self._cases.keys():
            went = self._cases[group].came_and_went
            self._cases[group].came_and_went = [*went, *taken[group].began][-_MOST_ENDS:]
        new = self._judged(now, await self._came(self._due(now), meeting))
        if taken:
            await self._take(taken, meeting)
        if new or self.paused:
            self._tell(now)
        return new

    def _due(self, now: Timestamp) -> dict[Group, Timestamp]:
        """Groups in which a terminated session may have been replaced by now, and from when that counts."""
        return {
            group: case.ends[0]
            for group, case in self._cases.items()
            if case.ends and case.ends[0] + case.refill_guard.within <= now
        }

    async def _came(
        self, since: Mapping[Group, Timestamp], meeting: Meeting
    ) -> dict[Group, list[Timestamp]] | None:
        """When newcomers of each group came; nothing when the server does not say."""
        if not since:
            return {}
        roles = {group.identity.role or "" for group in since}
        found = await meeting.newcomers(roles, min(since.values()))
        if found is None:
            return None
        came = {group: list[Timestamp]() for group in since}
        for newcomer in found:
            for group in since:
                if group.identity == newcomer.identity:
                    came[group].append(newcomer.began)
        return came

    def _judged(self, now: Timestamp, came: Mapping[Group, list[Timestamp]] | None) -> list[PausedGroup]:
        new = []
        for group, moments in (came or {}).items():
            case = self._cases[group]
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

    async def _take(self, taken: Mapping[Group, "_Taken"], meeting: Meeting) -> None:
        """Note new ends; where there were none lately, how many come when nothing is taken."""
        quiet: dict[Group, Timestamp] = {}
        for group, one in taken.items():
            case = self._cases.get(group)
            if case is None or one.ends[0] - case.last_end > 2 * case.refill_guard.within:
                quiet[group] = Timestamp(one.ends[0] - one.refill_guard.within)
        came = await self._came(quiet, meeting)
        for group, one in taken.items():
            if group in quiet and came is None:
                continue
            case = self._case(group, one.policy, one.refill_guard)
            if case.counts.paused and case.counts.paused.until > one.ends[-1]:
                continue  # terminated in the cycle in which the pause began
            if came and group in quiet:
                # Those that have just been ended may have been among them.
                before = [*came[group], *one.began]
                case.before = sum(quiet[group] <= each < one.ends[0] for each in before)
            case.ends = [*case.ends, *one.ends][:_MOST_ENDS]
            case.last_end = case.ends[-1]

    def _case(self, group: Group, policy: Policy, refill_guard: RefillGuard) -> _Case:
        case = self._cases.pop(group, None) or _Case(policy=policy, refill_guard=refill_guard)
        case.policy, case.refill_guard = policy, refill_guard
        self._cases[group] = case  # the last one: who was not taken from for longest is forgotten first
        if len(self._cases) > _MOST_GROUPS:
            self._cases.pop(next(iter(self._cases)))
        return case

    def _tell(self, now: Timestamp) -> None:
        paused = {group: case.counts.paused for group, case in self._cases.items()}
        self.paused = MappingProxyType(
            {group: one for group, one in paused.items() if one and one.until > now}
        )


@dataclass(slots=True, kw_only=True)
class _Taken:
    """What one cycle has ended of one group."""

    policy: Policy
    refill_guard: RefillGuard
    ends: list[Timestamp] = field(default_factory=list)
    began: list[Timestamp] = field(default_factory=list)


def _taken(settled: Iterable[tuple[Candidate, Outcome]]) -> dict[Group, _Taken]:
    """The sessions of each group that were terminated, in order of time."""
    found: dict[Group, _Taken] = {}
    for candidate, outcome in settled:
        policy, session = candidate.policy, candidate.session
        ended = outcome.result is Result.TERMINATED and outcome.act
        if not ended or policy.refill_guard is None or session.identity.role is None:
            continue
        group = Group(policy.name, session.identity)
        one = found.setdefault(group, _Taken(policy=policy, refill_guard=policy.refill_guard))
        one.ends.append(ended.signalled)
        one.began.append(session.id.backend_start)
    for one in found.values():
        one.ends.sort()
    return found
