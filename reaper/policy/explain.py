"""What every policy decides about one session, and when the session becomes due."""

from dataclasses import dataclass

from reaper.policy.decide import decide
from reaper.policy.match import CriterionResult
from reaper.policy.memory import Memory
from reaper.policy.plan import Decision, Skip, SkipReason, unknown
from reaper.policy.protections import Protection, protections_of
from reaper.policy.rules import Policy, Rules
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExplanation:
    """What one policy decides about one session."""

    policy: Policy
    results: tuple[CriterionResult, ...]
    protections: tuple[Protection, ...]
    """The protections that this policy does not override."""
    allowlist: str | None
    rests: str | None
    due: Timestamp | None
    """When its ages are reached if the session stays as it is; None when they never will be."""

    @property
    def matches(self) -> bool:
        """Whether every criterion holds."""
        return all(result.holds for result in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What all policies decide about one session."""

    session: Session
    unknown: str | None
    policies: tuple[PolicyExplanation, ...]
    decision: Decision


def explain(
    session: Session, *, snapshot: Snapshot, rules: Rules, memory: Memory | None = None
) -> Explanation:
    """Explain the decision about a session, by the same code that decides."""
    plan = decide(snapshot=snapshot, rules=rules, memory=memory or Memory.of(snapshot))
    decision = next(decision for decision in plan.decisions if decision.session.id == session.id)
    return Explanation(
        session=session,
        unknown=unknown(session)
        if isinstance(decision, Skip) and decision.by is SkipReason.UNKNOWN
        else None,
        policies=tuple(_explain_policy(policy, session, snapshot, rules) for policy in rules.policies),
        decision=decision,
    )


def _explain_policy(policy: Policy, session: Session, snapshot: Snapshot, rules: Rules) -> PolicyExplanation:
    hit = policy.allowlist.first_hit(session.identity)
    rests = policy.rests(snapshot)
    return PolicyExplanation(
        policy=policy,
        results=tuple(policy.match.results(session, snapshot)),
        protections=tuple(protections_of(session, snapshot, rules.protect, policy.overrides)),
        allowlist=hit and str(hit),
        rests=rests and rests[1],
        due=policy.match.due(session) if policy.match.selector.selects(session.identity) else None,
    )
