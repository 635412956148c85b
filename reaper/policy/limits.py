"""The limits of a policy: keep, max_sessions, safety_limit, refill_guard, first sighting, max_per_cycle.

Each limit takes the matched sessions of one policy, the longest idle first, returns those that remain, and
notes the sessions that it skips.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from reaper.policy.memory import MAX_TRIES, Memory, Tried
from reaper.policy.plan import SafetyLimitTrip, Skip, SkipReason
from reaper.policy.refill_guard import Group
from reaper.policy.rules import Policy
from reaper.policy.session import CLIENT_BACKEND, Identity, Session, Snapshot
from reaper.policy.text import percent


class Limited(NamedTuple):
    """The matched sessions of a policy within its limits, and those that a limit skips."""

    matched: list[Session]
    skips: list[Skip]
    trip: SafetyLimitTrip | None


def apply_limits(policy: Policy, matched: list[Session], snapshot: Snapshot, memory: Memory) -> Limited:
    """Apply every limit of this policy in order; `matched` comes with the longest idle first."""
    skips = _Skips(policy)
    remaining = _above_max_sessions(skips, _without_kept(skips, matched), snapshot)
    trip = _safety_limit(policy, len(remaining), snapshot.clients)
    if trip:
        for session in remaining:
            skips.add(session, SkipReason.SAFETY_LIMIT, trip.reason)
        return Limited([], skips.found, trip)
    # After the safety limit, which must also count paused sessions: the policy matches them all.
    remaining = _seen_before(skips, _not_paused(skips, remaining, snapshot, memory), memory)
    return Limited(_first_of_cycle(skips, remaining), skips.found, None)


@dataclass(slots=True)
class _Skips:
    policy: Policy
    found: list[Skip] = field(default_factory=list)

    def add(self, session: Session, by: SkipReason, reason: str) -> None:
        self.found.append(Skip(session=session, by=by, reason=reason, policy=self.policy))


def _group(identity: Identity, per: tuple[str, ...]) -> tuple[str | None, ...]:
    return tuple(getattr(identity, key) for key in per)


def _without_kept(skips: _Skips, matched: list[Session]) -> list[Session]:
    keep = skips.policy.keep
    if keep is None:
        return matched
    groups = defaultdict[tuple[str | None, ...], list[Session]](list)
    for session in matched:
        groups[_group(session.identity, keep.per)].append(session)
    kept = set[Session]()
    for group in groups.values():
        newest_first = sorted(
            group, key=lambda session: (session.id.backend_start, session.id.pid), reverse=True
        )
        kept.update(newest_first[: keep.newest])
    reason = f"keep: among the newest {keep.newest} per {', '.join(keep.per)}"
    for session in kept:
        skips.add(session, SkipReason.KEEP, reason)
    return [session for session in matched if session not in kept]


def _above_max_sessions(skips: _Skips, matched: list[Session], snapshot: Snapshot) -> list[Session]:
    limit = skips.policy.max_sessions
    if limit is None:
        return matched
    # A walsender takes none of the slots that `max_sessions` counts.
    counts = Counter(session.identity for session in snapshot.sessions if session.kind == CLIENT_BACKEND)
    open_ = Counter[tuple[str | None, ...]]()
    for identity, count in counts.items():
        if skips.policy.match.selector.selects(identity):
            open_[_group(identity, limit.per)] += count
    taken = defaultdict[tuple[str | None, ...], int](int)
    remaining = []
    for session in matched:
        group = _group(session.identity, limit.per)
        if taken[group] < open_[group] - limit.most:
            taken[group] += 1
            remaining.append(session)
        else:
            sessions = f"its group has {open_[group]} sessions"
            allowed = f"{limit.most} allowed per {', '.join(limit.per)}"
            first = f", {taken[group]} longer idle ones first" if taken[group] else ""
            skips.add(session, SkipReason.MAX_SESSIONS, f"max_sessions: {sessions}, {allowed}{first}")
    return remaining


def _safety_limit(policy: Policy, matched: int, clients: int) -> SafetyLimitTrip | None:
    limit = policy.safety_limit
    if limit is None or not limit.trips(matched, clients):
        return None
    share = f"{matched} of {clients} clients ({percent(matched / clients)})"
    reason = f"safety limit: {share} > {percent(limit.share)}"
    return SafetyLimitTrip(policy=policy, matched=matched, clients=clients, reason=reason)


def _not_paused(skips: _Skips, matched: list[Session], snapshot: Snapshot, memory: Memory) -> list[Session]:
    if not memory.paused or skips.policy.refill_guard is None:
        return matched
    remaining = []
    for session in matched:
        paused = memory.paused.get(Group(skips.policy.name, session.identity))
        if paused and snapshot.at < paused.until:
            skips.add(session, SkipReason.REFILL_GUARD, paused.reason)
        else:
            remaining.append(session)
    return remaining


def _seen_before(skips: _Skips, matched: list[Session], memory: Memory) -> list[Session]:
    remaining = []
    for session in matched:
        if session.id not in memory.seen:
            reason = "first sighting: a second snapshot must confirm it"
            skips.add(session, SkipReason.FIRST_SIGHTING, reason)
        elif memory.no_effect.get(Tried.of(session, skips.policy.action), 0) >= MAX_TRIES:
            reason = f"no effect: tried {MAX_TRIES} times, look at the server"
            skips.add(session, SkipReason.NO_EFFECT, reason)
        else:
            remaining.append(session)
    return remaining


def _first_of_cycle(skips: _Skips, matched: list[Session]) -> list[Session]:
    most = skips.policy.max_per_cycle
    for rank, session in enumerate(matched[most:], start=most):
        reason = f"max_per_cycle: {most} per cycle, {rank} longer idle ones first"
        skips.add(session, SkipReason.MAX_PER_CYCLE, reason)
    return matched[:most]
