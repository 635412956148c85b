"""What holds a policy back from sessions that it condemns: keep, cap, brake, churn, sightings, pace.

Each restraint takes the condemned sessions of one policy, the longest idle first, returns those that remain
condemned, and notes those that it spares.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from reaper.policy.memory import MOST_TRIES, Memory, Tried
from reaper.policy.plan import BrakeTrip, Spare, Spared
from reaper.policy.refill_guard import Group
from reaper.policy.rules import Policy
from reaper.policy.session import CLIENT_BACKEND, Identity, Session, Snapshot
from reaper.policy.text import percent


class Restrained(NamedTuple):
    """What is left of a policy's wish."""

    condemned: list[Session]
    spares: list[Spare]
    trip: BrakeTrip | None


def restrain(policy: Policy, condemned: list[Session], snapshot: Snapshot, memory: Memory) -> Restrained:
    """Apply every restraint of this policy in order; `condemned` comes with the longest idle first."""
    sieve = _Sieve(policy)
    remaining = _within_cap(sieve, _kept(sieve, condemned), snapshot)
    trip = _brake(policy, len(remaining), snapshot.clients)
    if trip:
        for session in remaining:
            sieve.spare(session, Spared.BRAKE, trip.reason)
        return Restrained([], sieve.spares, trip)
    # After the brake: whom churn spares must not make a plan look smaller than it was written.
    remaining = _sighted(sieve, _calmed(sieve, remaining, snapshot, memory), memory)
    return Restrained(_paced(sieve, remaining), sieve.spares, None)


@dataclass(slots=True)
class _Sieve:
    policy: Policy
    spares: list[Spare] = field(default_factory=list)

    def spare(self, session: Session, by: Spared, reason: str) -> None:
        self.spares.append(Spare(session=session, by=by, reason=reason, policy=self.policy))


def _group(identity: Identity, per: tuple[str, ...]) -> tuple[str | None, ...]:
    return tuple(getattr(identity, key) for key in per)


def _kept(sieve: _Sieve, condemned: list[Session]) -> list[Session]:
    keep = sieve.policy.keep
    if keep is None:
        return condemned
    groups = defaultdict[tuple[str | None, ...], list[Session]](list)
    for session in condemned:
        groups[_group(session.identity, keep.per)].append(session)
    kept = set[Session]()
    for group in groups.values():
        newest_first = sorted(
            group, key=lambda session: (session.id.backend_start, session.id.pid), reverse=True
        )
        kept.update(newest_first[: keep.newest])
    for session in kept:
        sieve.spare(session, Spared.KEEP, f"keep: among the newest {keep.newest} per {', '.join(keep.per)}")
    return [session for session in condemned if session not in kept]


def _within_cap(sieve: _Sieve, condemned: list[Session], snapshot: Snapshot) -> list[Session]:
    cap = sieve.policy.cap
    if cap is None:
        return condemned
    # A walsender takes none of the slots that a cap shares out.
    counts = Counter(session.identity for session in snapshot.sessions if session.kind == CLIENT_BACKEND)
    held = Counter[tuple[str | None, ...]]()
    for identity, count in counts.items():
        if sieve.policy.match.selector.selects(identity):
            held[_group(identity, cap.per)] += count
    taken = defaultdict[tuple[str | None, ...], int](int)
    remaining = []
    for session in condemned:
        group = _group(session.identity, cap.per)
        if taken[group] < held[group] - cap.most:
            taken[group] += 1
            remaining.append(session)
        else:
            holds = f"its group holds {held[group]} sessions, {cap.most} allowed per {', '.join(cap.per)}"
            first = f", {taken[group]} longer idle ones first" if taken[group] else ""
            sieve.spare(session, Spared.CAP, f"cap: {holds}{first}")
    return remaining


def _brake(policy: Policy, condemned: int, clients: int) -> BrakeTrip | None:
    brake = policy.brake
    if brake is None or not brake.trips(condemned, clients):
        return None
    share = percent(brake.share)
    reason = f"brake: would take {condemned} of {clients} client sessions, acts on nobody above {share}"
    return BrakeTrip(policy=policy, condemned=condemned, clients=clients, reason=reason)


def _calmed(sieve: _Sieve, condemned: list[Session], snapshot: Snapshot, memory: Memory) -> list[Session]:
    if not memory.left_alone or sieve.policy.churn is None:
        return condemned
    remaining = []
    for session in condemned:
        found = memory.left_alone.get(Group(sieve.policy.name, session.identity))
        if found and snapshot.at < found.until:
            sieve.spare(session, Spared.CHURN, found.reason)
        else:
            remaining.append(session)
    return remaining


def _sighted(sieve: _Sieve, condemned: list[Session], memory: Memory) -> list[Session]:
    remaining = []
    for session in condemned:
        if session.id not in memory.seen:
            sieve.spare(session, Spared.FIRST_SIGHTING, "first sighting: a second look must agree")
        elif memory.in_vain.get(Tried.of(session, sieve.policy.action), 0) >= MOST_TRIES:
            reason = f"tried {MOST_TRIES} times in vain: look at the server"
            sieve.spare(session, Spared.IN_VAIN, reason)
        else:
            remaining.append(session)
    return remaining


def _paced(sieve: _Sieve, condemned: list[Session]) -> list[Session]:
    pace = sieve.policy.pace
    for rank, session in enumerate(condemned[pace:], start=pace):
        sieve.spare(session, Spared.PACE, f"pace: {pace} per cycle, {rank} older ones first")
    return condemned[:pace]
