"""The data of the status page and `/usage`, built for each request."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from reaper import __version__
from reaper.config import Settings
from reaper.history.snapshot import dump_snapshot
from reaper.insight.dryrun.assessment import Assessment, assess
from reaper.policy.rules import Rules
from reaper.policy.time import Duration, isoformat, seconds
from reaper.service.fleet import Fleet
from reaper.service.on_demand import CurrentUsage
from reaper.service.reporter import RecentEvents, RunTotals
from reaper.service.server_loop import ServerLoop
from reaper.service.status import State
from reaper.telemetry.http.routes import ReadAssessment
from reaper.telemetry.http.views import (
    AssessmentLine,
    DueLine,
    GuardedPool,
    Overview,
    PolicyLine,
    ServerLine,
    ServerView,
    ServiceAssessment,
)
from reaper.telemetry.metrics.collect import Metrics
from reaper.telemetry.metrics.samples import candidates

_MAX_GUARDED_POOLS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAssessment:
    """Assesses the dry runs of all servers since the start."""

    fleet: Fleet

    async def read(self) -> ServiceAssessment:
        """Assess the newest dry runs; in a thread, because there may be thousands."""
        dry_runs = self.fleet.outcomes()
        assessed = await asyncio.to_thread(assess, dry_runs.newest())
        return ServiceAssessment(
            policies=assessed,
            watched=dry_runs.watched,
            forgotten=dry_runs.forgotten,
            refill_guarded=tuple(self._refill_guarded())[:_MAX_GUARDED_POOLS],
        )

    def _refill_guarded(self) -> list[GuardedPool]:
        return [
            GuardedPool(
                server=server,
                policy=group.policy,
                session=group.identity,
                until=isoformat(pause.until),
                reason=pause.reason,
            )
            for server, follow_up in self.fleet.follow_ups.items()
            for group, pause in follow_up.refills.paused.items()
        ]


_MAX_SERVERS: Final = 100
_MAX_POLICIES: Final = 50
_MAX_EVENTS: Final = 12
_MAX_GUARDED_POOLS_ON_PAGE: Final = 6
_OBSERVED: Final = {State.WORKING, State.FAILING}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageData:
    """Builds the data of the pages from the loops, the metrics and the on-demand snapshots."""

    fleet: Fleet
    settings: Callable[[], Settings]
    metrics: Metrics
    recent_events: RecentEvents
    assessment: ReadAssessment
    dry_run: bool
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)

    async def overview(self, name: str | None) -> Overview | None:
        """Return the fleet, and in full the server of this name, or the only one; None: no such server."""
        loops = {loop.server.name: loop for loop in self.fleet.loops}
        if name is not None and name not in loops:
            return None
        chosen = loops[name] if name is not None else next(iter(loops.values())) if len(loops) == 1 else None
        shown = await self._shown(chosen) if chosen else None
        assessment = await self.assessment()
        # Sorted before the cut: of a thousand servers, those with a problem must be shown.
        lines = sorted(map(self._line, loops.values()), key=_urgency)
        return Overview(
            version=__version__,
            up_s=round(self.clock() - self.began),
            dry_run=self.dry_run,
            rules=self.settings().rules.digest[:12],
            reloaded=self.metrics.reload.succeeded,
            servers=tuple(lines[:_MAX_SERVERS]),
            more_servers=len(lines[_MAX_SERVERS:]),
            shown=shown,
            recent_events=self.recent_events.latest(_MAX_EVENTS),
            assessments=tuple(map(_assessment_line, assessment.policies[:_MAX_POLICIES])),
            refill_guarded=assessment.refill_guarded[:_MAX_GUARDED_POOLS_ON_PAGE],
        )

    async def snapshot(self, name: str) -> bytes | None:
        """Return a snapshot of this server as a file; None if there is no such server or no snapshot yet."""
        loop = next((loop for loop in self.fleet.loops if loop.server.name == name), None)
        found = await loop.on_demand.snapshot() if loop else None
        # In a thread: a large server has thousands of sessions, and cycles share this event loop.
        return None if found is None else await asyncio.to_thread(dump_snapshot, found)

    def _line(self, loop: ServerLoop) -> ServerLine:
        status = loop.status
        slots = status.slots if status.state in _OBSERVED else None
        return ServerLine(
            name=loop.server.name,
            state=status.state.value,
            why=status.why,
            total=slots.total if slots else None,
            usable=max(slots.total - slots.reserved, 0) if slots else None,
            used=slots.used if slots else None,
            trend=loop.on_demand.used,
        )

    async def _shown(self, loop: ServerLoop) -> ServerView:
        current = await loop.on_demand.usage()
        due = loop.status.next_cycle
        rules = self.settings().rules_for(loop.server)
        return ServerView(
            name=loop.server.name,
            usage=current.usage if current else None,
            seen_s_ago=round(max(self.clock() - current.taken, 0.0), 1) if current else None,
            next_cycle_s=None if due is None else round(max(due - self.clock(), 0.0), 1),
            soonest=tuple(self._soonest(current)) if current else (),
            policies=tuple(self._policies(loop.server.name, rules)),
        )

    def _soonest(self, current: CurrentUsage) -> Iterator[DueLine]:
        age = self.clock() - current.taken
        for due in current.soonest:
            # Both times are of the server's clock; only their age is measured with this host's clock.
            left = seconds(Duration(due.at - current.at)) - age
            yield DueLine(
                pid=due.session.id.pid,
                session=due.session.identity,
                state=due.session.state,
                policy=due.policy.name,
                mode=self._mode(due.policy.mode.value),
                due_in_s=round(max(left, 0.0), 1),
            )

    def _policies(self, server: str, rules: Rules) -> Iterator[PolicyLine]:
        gauges = self.metrics.servers.get(server)
        plan = gauges and gauges.plan
        matching = candidates(plan, rules) if plan else None
        tripped = {trip.policy.name for trip in plan.trips} if plan else set()
        totals = self.fleet.totals.get(server) or RunTotals()
        for policy in rules.policies[:_MAX_POLICIES]:
            yield PolicyLine(
                name=policy.name,
                mode=self._mode(policy.mode.value),
                description=policy.description or None,
                matching=matching[policy.name, policy.mode.value] if matching else None,
                tripped=policy.name in tripped,
                outcomes={
                    result.value: count for (of, result), count in totals.results.items() if of == policy.name
                },
            )

    def _mode(self, mode: str) -> str:
        return "dry-run" if self.dry_run and mode == "enforce" else mode


def _assessment_line(one: Assessment) -> AssessmentLine:
    return AssessmentLine(policy=one.policy, advice=one.advice.value, said=one.summary, acts=one.regret.total)


def _urgency(line: ServerLine) -> tuple[bool, float, str]:
    """Sort key: servers without a working reaper first, then the fullest."""
    served = line.state in {State.WORKING.value, State.STANDBY.value}
    share = line.used / max(line.usable or 1, 1) if line.used is not None else 0.0
    return served, -share, line.name
