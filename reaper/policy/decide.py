"""Snapshot + Rules -> Plan.

Every session is judged in a lane: the real one knows only enforcing policies, the rehearsal knows all
of them, as if dry-run policies were enforced. So a rehearsal changes nothing of what happens for real.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeGuard

from reaper.policy.limits import restrain
from reaper.policy.memory import Memory
from reaper.policy.plan import (
    BrakeTrip,
    Plan,
    Reap,
    Spare,
    Spared,
    Verdict,
    beyond_policies,
    longest_idle_first,
    unknown,
    unmatched,
)
from reaper.policy.protections import NEEDS_LOCKS, Shield, shield
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.selector import Hit
from reaper.policy.session import Session, SessionId, Snapshot

_LOCKS: Final = frozenset({NEEDS_LOCKS})


def decide(*, snapshot: Snapshot, rules: Rules, memory: Memory) -> Plan:
    """Judge every session of a snapshot."""
    sessions = sorted(_to_be_judged(snapshot, rules, memory), key=lambda session: session.id)
    real = _Lane(snapshot, rules, memory, Mode.ENFORCE).judge(sessions)
    if not rules.rehearsing:
        return Plan(snapshot=snapshot, judged=tuple(real.verdicts.values()), brakes=real.brakes)
    rehearsal = _Lane(snapshot, rules, memory, Mode.DRY_RUN).judge(sessions)
    return Plan(
        snapshot=snapshot,
        judged=tuple(_merged(verdict, rehearsal.verdicts[who]) for who, verdict in real.verdicts.items()),
        rehearsed_beside=tuple(
            beside
            for who, beside in rehearsal.verdicts.items()
            if _is_rehearsal(beside) and isinstance(real.verdicts[who], Reap)
        ),
        brakes=(*real.brakes, *(trip for trip in rehearsal.brakes if trip.policy.mode is Mode.DRY_RUN)),
    )


def _to_be_judged(snapshot: Snapshot, rules: Rules, memory: Memory) -> list[Session]:
    """The sessions that a policy could match by now or that an earlier dry run took: few of many."""
    ripe = rules.ripe(snapshot)
    if not memory.taken:
        return ripe
    others = memory.taken - {session.id for session in ripe}
    return ripe + [session for session in snapshot.sessions if session.id in others]


class Questions(NamedTuple):
    """Which facts the candidates of a snapshot need."""

    advisory_locks: bool = False
    blocking: bool = False
    everybody: bool = False
    """Whether a look that leaves out the young will not do."""


def questions(snapshot: Snapshot, rules: Rules) -> Questions:
    """Look for candidates, and say what must be known of them; quiet servers are asked nothing."""
    locks = blocking = everybody = False
    rests = _Rests(snapshot)
    for session in rules.ripe(snapshot):
        if unknown(session):
            continue
        meant = rules.meaning(session)
        candidate = False
        for policy in meant.policies:
            if policy.match.holds_but_for_facts(session, snapshot.at):
                candidate = True
                spared_anyway = policy.name in meant.allowed or rests.of(policy)
                locks = locks or not (spared_anyway or NEEDS_LOCKS in policy.despite)
                blocking = blocking or policy.match.blocking
                everybody = everybody or policy.cap is not None  # which counts the young as well
        # Where a clock was set back, one may pass for young.
        everybody = everybody or (candidate and not rules.cutoffs.reached(session, snapshot.at))
    return Questions(advisory_locks=locks, blocking=blocking, everybody=everybody)


class _Rests(dict[str, tuple[str, str] | None]):
    """Why each policy rests, worked out once for a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def of(self, policy: Policy) -> tuple[str, str] | None:
        """By what, and why; nothing when it acts."""
        if policy.name not in self:
            self[policy.name] = policy.rests(self._snapshot)
        return self[policy.name]


class _Judged(NamedTuple):
    verdicts: Mapping[SessionId, Verdict]
    brakes: tuple[BrakeTrip, ...]


class _Lane:
    """One way to judge a snapshot: by the enforcing policies alone, or as if every policy were enforced."""

    def __init__(self, snapshot: Snapshot, rules: Rules, memory: Memory, mode: Mode) -> None:
        self._snapshot = memory.without_rehearsed(snapshot, mode)
        self._rules = rules
        self._memory = memory
        self._mode = mode
        self._policies = rules.enforcing if mode is Mode.ENFORCE else rules.awake
        self._shields: dict[tuple[SessionId, frozenset[str]], Shield | None] = {}
        self._rests = _Rests(self._snapshot)

    def judge(self, sessions: list[Session]) -> _Judged:
        verdicts = dict[SessionId, Verdict]()
        condemned = defaultdict[str, list[Session]](list)
        for session in sessions:
            answer = self._sift(session)
            if isinstance(answer, Policy):
                condemned[answer.name].append(session)
                # Holds the place, so that the order of verdicts is the order of sessions.
                verdicts[session.id] = Reap(session=session, policy=answer, reason="")
            else:
                verdicts[session.id] = answer
        return _Judged(verdicts, tuple(self._restrain(condemned, verdicts)))

    def _sift(self, session: Session) -> Policy | Spare:
        """Find the policy that decides about a session, or why none does."""
        if spare := beyond_policies(session, self._snapshot):
            return spare
        if self._memory.has_rehearsed(session, self._mode):
            reason = "rehearsed before: a real run would be rid of it"
            return Spare(session=session, by=Spared.REHEARSED, reason=reason)
        meant = self._rules.meaning(session)
        for policy in meant.policies:
            known_here = self._mode is Mode.DRY_RUN or policy.mode is Mode.ENFORCE
            if not known_here or not policy.match.holds(session, self._snapshot):
                continue
            found = self._veto(policy, session, meant.allowed.get(policy.name))
            if found is None:
                return policy
            spare = spare or found
        return spare or unmatched(session)

    def _veto(self, policy: Policy, session: Session, allowed: Hit | None) -> Spare | None:
        """Why a policy that matches skips the session: a protection, its allowlist, or `when` or `during`.

        Who holds advisory locks comes last: it is not asked where all else suffices.
        """
        if found := self._shield(session, policy.despite | _LOCKS):
            return _protected(session, policy, found)
        if allowed:
            return Spare(session=session, by=Spared.ALLOWLIST, reason=f"allowlist {allowed}", policy=policy)
        if rests := self._rests.of(policy):
            by, reason = rests
            return Spare(session=session, by=Spared(by), reason=reason, policy=policy)
        if found := self._shield(session, policy.despite):
            return _protected(session, policy, found)
        return None

    def _shield(self, session: Session, despite: frozenset[str]) -> Shield | None:
        """The same for all policies that set aside the same; they ask about one session after the other."""
        key = (session.id, despite)
        if key not in self._shields:
            self._shields = {key: shield(session, self._snapshot, self._rules.protect, despite)}
        return self._shields[key]

    def _restrain(
        self, condemned: Mapping[str, list[Session]], verdicts: dict[SessionId, Verdict]
    ) -> list[BrakeTrip]:
        trips = []
        for policy in self._policies:
            if policy.name not in condemned:
                continue
            longest_idle = sorted(condemned[policy.name], key=longest_idle_first)
            left = restrain(policy, longest_idle, self._snapshot, self._memory)
            for session in left.condemned:
                reason = policy.match.reason(session, self._snapshot)
                verdicts[session.id] = Reap(session=session, policy=policy, reason=reason)
            for spare in left.spares:
                verdicts[spare.session.id] = spare
            if left.trip:
                trips.append(left.trip)
        return trips


def _protected(session: Session, policy: Policy, found: Shield) -> Spare:
    reason = f"protected: {found.reason}"
    return Spare(session=session, by=Spared.PROTECTION, reason=reason, policy=policy, protection=found.name)


def _is_rehearsal(verdict: Verdict) -> TypeGuard[Reap]:
    return isinstance(verdict, Reap) and verdict.mode is Mode.DRY_RUN


def _merged(real: Verdict, rehearsed: Verdict) -> Verdict:
    """One verdict a session: the real one, unless it has nothing to tell and the rehearsal has."""
    if isinstance(real, Reap):
        return real
    if _is_rehearsal(rehearsed):
        return rehearsed
    by_rehearsing = (
        isinstance(rehearsed, Spare) and rehearsed.policy and rehearsed.policy.mode is Mode.DRY_RUN
    )
    tells_nothing = real.by is Spared.UNMATCHED
    already = isinstance(rehearsed, Spare) and rehearsed.by is Spared.REHEARSED
    return rehearsed if tells_nothing and (by_rehearsing or already) else real
