"""Questions, deadlines and explanations agree with the decision, in every world."""

from dataclasses import replace

from hypothesis import given

from reaper.policy.deadline import next_due
from reaper.policy.decide import NeededFacts, decide, needed_facts
from reaper.policy.explain import explain
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Plan, Skip, SkipReason, unknown
from reaper.policy.rules import Rules
from reaper.policy.session import Facts, SessionId
from reaper.policy.time import Timestamp

from .build import NOW, later
from .hostile import PROPERTY, World, worlds


def decided(world: World) -> Plan:
    return decide(snapshot=world.snapshot, rules=world.rules, memory=world.memory)


@PROPERTY
@given(worlds())
def test_facts_that_no_question_asked_for_change_nothing(world: World) -> None:
    asked = needed_facts(world.snapshot, world.rules)
    assert asked == needed_facts(replace(world.snapshot, facts=Facts()), world.rules)
    facts = world.snapshot.facts
    unasked = replace(
        facts,
        advisory_lock_holders=facts.advisory_lock_holders if asked.advisory_locks else None,
        waiters=facts.waiters if asked.blocking else None,
    )
    assert decided(replace(world, snapshot=replace(world.snapshot, facts=unasked))) == decided(world)


@PROPERTY
@given(worlds())
def test_no_question_is_asked_when_nobody_is_a_candidate(world: World) -> None:
    if not candidates(world, NOW):
        assert needed_facts(world.snapshot, world.rules) == NeededFacts()


def candidates(world: World, at: Timestamp) -> set[tuple[SessionId, str]]:
    """Whom each policy would consider at that moment if nothing changed, facts and restraints aside."""
    return {
        (seen.id, policy.name)
        for seen in world.snapshot.sessions
        for policy in world.rules.enabled
        if not unknown(seen)
        and policy.match.selector.selects(seen.identity)
        and policy.match.holds_but_for_facts(seen, at)
    }


@PROPERTY
@given(worlds())
def test_policies_are_asked_about_every_candidate(world: World) -> None:
    found = {answer.session.id for answer in decided(world).decided}
    assert found >= {who for who, _ in candidates(world, NOW)}


@PROPERTY
@given(worlds())
def test_nobody_is_spared_by_a_policy_that_was_not_asked(world: World) -> None:
    plan = decided(world)
    assert plan.matched_skips == tuple(skip for skip in plan.skips if skip.policy)
    assert {answer.session.id for answer in plan.decided} <= {answer.session.id for answer in plan.decisions}


@PROPERTY
@given(worlds())
def test_nobody_becomes_a_candidate_before_the_next_deadline(world: World) -> None:
    due = next_due(world.snapshot, world.rules)
    before = Timestamp(10**40) if due is None else later(due, by=-1)
    assert candidates(world, before) == candidates(world, NOW)


@PROPERTY
@given(worlds())
def test_somebody_is_a_candidate_at_the_next_deadline(world: World) -> None:
    ages_only = tuple(
        replace(policy, match=replace(policy.match, xmin_age=None)) for policy in world.rules.policies
    )
    world = replace(world, rules=replace(world.rules, policies=ages_only))
    due = next_due(world.snapshot, world.rules)
    assert due is None or (due > NOW and candidates(world, due) > candidates(world, NOW))


@PROPERTY
@given(worlds())
def test_an_explanation_agrees_with_the_decision(world: World) -> None:
    memory = Memory.of(world.snapshot)
    plan = decide(snapshot=world.snapshot, rules=world.rules, memory=memory)
    for answer in plan.decisions:
        told = explain(answer.session, snapshot=world.snapshot, rules=world.rules)
        assert told.decision == answer
        assert (told.unknown is not None) is (isinstance(answer, Skip) and answer.by is SkipReason.UNKNOWN)
        if told.unknown is None:
            free = [
                one.policy.name
                for one in told.policies
                if one.matches and not (one.protections or one.allowlist or one.rests)
            ]
            assert answered_by(answer, free, world.rules)


def answered_by(answer: Candidate | Skip, free: list[str], judged_by: Rules) -> bool:
    """Whether the policy of a verdict is the first of its lane that nothing keeps from deciding."""
    enabled = [policy.name for policy in judged_by.enabled if policy.name in free]
    enforcing = [policy.name for policy in judged_by.enforcing if policy.name in free]
    restrained = isinstance(answer, Skip) and answer.by in (
        *(SkipReason.KEEP, SkipReason.MAX_SESSIONS, SkipReason.SAFETY_LIMIT, SkipReason.MAX_PER_CYCLE),
    )
    if isinstance(answer, Candidate) or restrained:
        return answer.policy is not None and answer.policy.name in (*enabled[:1], *enforcing[:1])
    # A dry-run policy that is held back has the word only when no enforcing policy has anything to say.
    return not enforcing and (answer.by is not SkipReason.UNMATCHED or not enabled)
