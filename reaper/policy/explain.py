"""Every policy's answer for one session, and when the session would fall due."""

from dataclasses import dataclass

from reaper.policy.decide import decide
from reaper.policy.match import Answer
from reaper.policy.memory import Memory
from reaper.policy.plan import Spare, Spared, Verdict, unknown
from reaper.policy.protections import Shield, shields
from reaper.policy.rules import Policy, Rules
from reaper.policy.session import Session, Snapshot
from reaper.policy.time import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """What one policy says of one session."""

    policy: Policy
    answers: tuple[Answer, ...]
    shields: tuple[Shield, ...]
    """The protections that this policy has not set aside."""
    allowlist: str | None
    rests: str | None
    due: Instant | None
    """When its ages are reached if the session stays as it is; None when they never will be."""

    @property
    def matches(self) -> bool:
        """Whether every criterion holds."""
        return all(answer.holds for answer in self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that the rules say of one session."""

    session: Session
    unknown: str | None
    policies: tuple[PolicyAnswer, ...]
    verdict: Verdict


def explain(
    session: Session, *, snapshot: Snapshot, rules: Rules, memory: Memory | None = None
) -> Explanation:
    """Ask every policy about a session, by the same code that decides."""
    plan = decide(snapshot=snapshot, rules=rules, memory=memory or Memory.of(snapshot))
    verdict = next(verdict for verdict in plan.verdicts if verdict.session.id == session.id)
    return Explanation(
        session=session,
        unknown=unknown(session) if isinstance(verdict, Spare) and verdict.by is Spared.UNKNOWN else None,
        policies=tuple(_answer(policy, session, snapshot, rules) for policy in rules.policies),
        verdict=verdict,
    )


def _answer(policy: Policy, session: Session, snapshot: Snapshot, rules: Rules) -> PolicyAnswer:
    hit = policy.allowlist.first_hit(session.identity)
    rests = policy.rests(snapshot)
    return PolicyAnswer(
        policy=policy,
        answers=tuple(policy.match.answers(session, snapshot)),
        shields=tuple(shields(session, snapshot, rules.protect, policy.despite)),
        allowlist=hit and str(hit),
        rests=rests and rests[1],
        due=policy.match.due(session) if policy.match.selector.selects(session.identity) else None,
    )
