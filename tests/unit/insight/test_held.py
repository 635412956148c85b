"""How many a rehearsal's restraints hold back."""

from dataclasses import replace

from reaper.insight.dryrun.assessment import held_words, restrained
from reaper.policy.plan import Plan, Spared
from reaper.policy.rules import Brake, Keep, Mode
from reaper.service.follow_up import Holdings
from tests.unit.policy.build import plan, policy, session, snapshot

CROWD = [session(pid, application=f"web-{pid}") for pid in range(201, 213)]
PACED = replace(policy("dry", mode=Mode.DRY_RUN), brake=None, pace=3, keep=Keep(newest=2, per=("role",)))


def held(decided: Plan, *, dry_run: bool = False) -> dict[str, int]:
    return {one.by: one.many for one in restrained(decided, dry_run=dry_run)}


def test_each_restraint_is_counted_for_itself() -> None:
    assert held(plan(snapshot(*CROWD), PACED)) == {"keep": 2, "pace": 7}


def test_under_the_brake_all_are_held_back() -> None:
    braked = replace(PACED, keep=None, brake=Brake(share=0.5, above=5))
    assert held(plan(snapshot(*CROWD), braked)) == {"brake": 12}


def test_a_policy_that_enforces_is_rehearsed_under_a_dry_run_only() -> None:
    real = plan(snapshot(*CROWD), replace(PACED, mode=Mode.ENFORCE))
    assert held(real) == {}
    assert held(real, dry_run=True) == {"keep": 2, "pace": 7}


def test_only_more_than_ever_before_is_news_until_the_rules_change() -> None:
    holdings = Holdings("orders")
    few, many = (plan(snapshot(*CROWD[:count]), PACED) for count in (6, 12))

    def news(decided: Plan, rules: str) -> dict[str, int]:
        return {one.by: one.many for one in holdings.cycled(decided, rules=rules, dry_run=False)}

    assert news(few, "old") == {"keep": 2, "pace": 1}
    assert news(few, "old") == {}
    assert news(many, "old") == {"pace": 7}
    assert news(few, "old") == {}
    assert {one.by: one.most for one in holdings.most} == {"keep": 2, "pace": 7}
    assert news(few, "new") == {"keep": 2, "pace": 1}
    assert {one.by: one.most for one in holdings.most} == {"keep": 2, "pace": 1}


def test_people_are_told_in_words() -> None:
    told = {Spared.PACE.value: 5, Spared.BRAKE.value: 300}
    assert held_words(told) == "300 by the brake, 5 by the pace, for a later cycle"
    assert held_words({}) == ""
