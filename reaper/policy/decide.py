"""Snapshot + Rules -> Plan.

The sessions are judged twice: once by the enforcing policies alone, and once by all policies as if all were
enforced. So a dry run decides exactly as enforcement would, and changes nothing of what is enforced.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeGuard

from reaper.policy.limits import apply_limits
from reaper.policy.memory import Memory
from reaper.policy.plan import (
    Candidate,
    Decision,
    Plan,
    SafetyLimitTrip,
    Skip,
    SkipReason,
    beyond_policies,
    longest_idle_first,
    unknown,
    unmatched,
)
from reaper.policy.protections import NEEDS_LOCKS, Protection, first_protection
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.selector import Hit
from reaper.policy.session import Session, SessionId, Snapshot

_LOCKS: Final = frozenset({NEEDS_LOCKS})


def decide(*, snapshot: Snapshot, rules: Rules, memory: Memory) -> Plan:
    """Decide about every session of a snapshot."""
    sessions = sorted(_possible(snapshot, rules, memory), key=lambda session: session.id)
    enforced = _Judge(snapshot, rules, memory, Mode.ENFORCE).judge(sessions)
    if not rules.dry_running:
        return Plan(snapshot=snapshot, decided=tuple(enforced.decisions.values()), trips=enforced.trips)
    dry_run = _Judge(snapshot, rules, memory, Mode.DRY_RUN).judge(sessions)
    return Plan(
        snapshot=snapshot,
        decided=tuple(_merged(real, dry_run.decisions[id_]) for id_, real in enforced.decisions.items()),
        dry_run_beside=tuple(
            beside
            for id_, beside in dry_run.decisions.items()
            if _is_dry_run(beside) and isinstance(enforced.decisions[id_], Candidate)
        ),
        trips=(*enforced.trips, *(trip for trip in dry_run.trips if trip.policy.mode is Mode.DRY_RUN)),
    )


def _possible(snapshot: Snapshot, rules: Rules, memory: Memory) -> list[Session]:
    """The sessions that a policy could match by now or that were dry-run before: few of many."""
    possible = rules.possible(snapshot)
    if not memory.dry_run_ids:
        return possible
    others = memory.dry_run_ids - {session.id for session in possible}
    return possible + [session for session in snapshot.sessions if session.id in others]


class NeededFacts(NamedTuple):
    """Which facts the candidates of a snapshot need."""

    advisory_locks: bool = False
    blocking: bool = False
    all_sessions: bool = False
    """Whether a snapshot without the prefilter is needed."""


def needed_facts(snapshot: Snapshot, rules: Rules) -> NeededFacts:
    """The expensive facts that the decision needs; a server without candidates needs none."""
    locks = blocking = all_sessions = False
    resting = _Resting(snapshot)
    for session in rules.possible(snapshot):
        if unknown(session):
            continue
        matching = rules.matching(session)
        candidate = False
        for policy in matching.policies:
            if policy.match.holds_but_for_facts(session, snapshot.at):
                candidate = True
                skipped_anyway = policy.name in matching.allowed or resting.of(policy)
                locks = locks or not (skipped_anyway or NEEDS_LOCKS in policy.overrides)
                blocking = blocking or policy.match.blocking
                # `max_sessions` counts all sessions of a group, also those that the prefilter leaves out.
                all_sessions = all_sessions or policy.max_sessions is not None
        # After a step back of the server's clock the prefilter may leave out sessions that are due.
        all_sessions = all_sessions or (candidate and not rules.prefilter.reached(session, snapshot.at))
    return NeededFacts(advisory_locks=locks, blocking=blocking, all_sessions=all_sessions)


class _Resting(dict[str, tuple[str, str] | None]):
    """Why each policy does not act now, computed once for a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def of(self, policy: Policy) -> tuple[str, str] | None:
        """The key of the policy and the reason; None if the policy acts."""
        if policy.name not in self:
            self[policy.name] = policy.rests(self._snapshot)
        return self[policy.name]


class _Judged(NamedTuple):
    decisions: Mapping[SessionId, Decision]
    trips: tuple[SafetyLimitTrip, ...]


class _Judge:
    """Judges a snapshot by the enforcing policies alone, or as if every policy were enforced."""

    def __init__(self, snapshot: Snapshot, rules: Rules, memory: Memory, mode: Mode) -> None:
        self._snapshot = memory.without_dry_run(snapshot, mode)
        self._rules = rules
        self._memory = memory
        self._mode = mode
        self._policies = rules.enforcing if mode is Mode.ENFORCE else rules.enabled
        self._protections: dict[tuple[SessionId, frozenset[str]], Protection | None] = {}
        self._resting = _Resting(self._snapshot)

    def judge(self, sessions: list[Session]) -> _Judged:
        decisions = dict[SessionId, Decision]()
        matched = defaultdict[str, list[Session]](list)
        for session in sessions:
            answer = self._policy_of(session)
            if isinstance(answer, Policy):
                matched[answer.name].append(session)
                # Reserves the place, so that the order of decisions is the order of sessions.
                decisions[session.id] = Candidate(session=session, policy=answer, reason="")
            else:
                decisions[session.id] = answer
        return _Judged(decisions, tuple(self._limit(matched, decisions)))

    def _policy_of(self, session: Session) -> Policy | Skip:
        """The first policy that matches and does not skip the session, or why there is none."""
        if skip := beyond_policies(session, self._snapshot):
            return skip
        if self._memory.was_dry_run(session, self._mode):
            reason = "dry run before: enforcement would have terminated it"
            return Skip(session=session, by=SkipReason.DRY_RUN, reason=reason)
        matching = self._rules.matching(session)
        for policy in matching.policies:
            applies = self._mode is Mode.DRY_RUN or policy.mode is Mode.ENFORCE
            if not applies or not policy.match.holds(session, self._snapshot):
                continue
            found = self._skip(policy, session, matching.allowed.get(policy.name))
            if found is None:
                return policy
            skip = skip or found
        return skip or unmatched(session)

    def _skip(self, policy: Policy, session: Session, allowed: Hit | None) -> Skip | None:
        """Why a policy that matches skips the session: a protection, its allowlist, or `when` or `during`.

        Advisory locks come last: they are not read if something else already skips the session.
        """
        if found := self._protection(session, policy.overrides | _LOCKS):
            return _protected(session, policy, found)
        if allowed:
            reason = f"allowlist {allowed}"
            return Skip(session=session, by=SkipReason.ALLOWLIST, reason=reason, policy=policy)
        if rests := self._resting.of(policy):
            by, reason = rests
            return Skip(session=session, by=SkipReason(by), reason=reason, policy=policy)
        if found := self._protection(session, policy.overrides):
            return _protected(session, policy, found)
        return None

    def _protection(self, session: Session, overrides: frozenset[str]) -> Protection | None:
        """The first protection of the session; cached, because many policies have the same overrides."""
        key = (session.id, overrides)
        if key not in self._protections:
            found = first_protection(session, self._snapshot, self._rules.protect, overrides)
            self._protections = {key: found}
        return self._protections[key]

    def _limit(
        self, matched: Mapping[str, list[Session]], decisions: dict[SessionId, Decision]
    ) -> list[SafetyLimitTrip]:
        trips = []
        for policy in self._policies:
            if policy.name not in matched:
                continue
            longest_idle = sorted(matched[policy.name], key=longest_idle_first)
            limited = apply_limits(policy, longest_idle, self._snapshot, self._memory)
            for session in limited.matched:
                reason = policy.match.reason(session, self._snapshot)
                decisions[session.id] = Candidate(session=session, policy=policy, reason=reason)
            for skip in limited.skips:
                decisions[skip.session.id] = skip
            if limited.trip:
                trips.append(limited.trip)
        return trips


def _protected(session: Session, policy: Policy, found: Protection) -> Skip:
    return Skip(
        session=session,
        by=SkipReason.PROTECTION,
        reason=f"protected: {found.reason}",
        policy=policy,
        protection=found.name,
    )


def _is_dry_run(decision: Decision) -> TypeGuard[Candidate]:
    return isinstance(decision, Candidate) and decision.mode is Mode.DRY_RUN


def _merged(real: Decision, dry_run: Decision) -> Decision:
    """One decision for a session: the real one, unless only the dry run has something to say."""
    if isinstance(real, Candidate):
        return real
    if _is_dry_run(dry_run):
        return dry_run
    if real.by is not SkipReason.UNMATCHED or not isinstance(dry_run, Skip):
        return real
    by_dry_run_policy = dry_run.policy is not None and dry_run.policy.mode is Mode.DRY_RUN
    return dry_run if by_dry_run_policy or dry_run.by is SkipReason.DRY_RUN else real
