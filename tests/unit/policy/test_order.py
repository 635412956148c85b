"""Which policy decides: the first whose match holds and that nothing keeps from it."""

from dataclasses import replace

import pytest

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, SkipReason
from reaper.policy.rules import Mode, Policy, When
from reaper.policy.selector import Selector
from reaper.policy.time import parse_duration

from .build import IDLE_10M, decision, globs, is_reaped, plan, policy, reasons, session, skipped, snapshot

ALLOWED = replace(policy("allowing"), allowlist=Selector(application=globs("web-*")))
RESTING = replace(policy("resting"), when=When(0.99))
UNFIT = policy("unfit", Match(states=("idle",), idle_for=parse_duration("5h")))
ELSEWHERE = policy("elsewhere", replace(IDLE_10M, selector=Selector(database=globs("stock"))))


def decided_by(*policies: Policy) -> str:
    answer = decision(session(), *policies)
    assert isinstance(answer, Candidate), answer
    return answer.policy.name


def test_the_first_policy_that_matches_decides() -> None:
    assert decided_by(policy("first"), policy("second")) == "first"


@pytest.mark.parametrize("above", [UNFIT, ELSEWHERE, ALLOWED, RESTING], ids=lambda above: above.name)
def test_a_policy_that_does_not_decide_leaves_the_session_to_the_next(above: Policy) -> None:
    assert decided_by(above, policy("next")) == "next"


@pytest.mark.parametrize(
    ("above", "by"), [(ALLOWED, SkipReason.ALLOWLIST), (RESTING, SkipReason.WHEN)], ids=["allowlist", "when"]
)
def test_the_first_policy_that_matched_is_the_one_that_is_told(above: Policy, by: SkipReason) -> None:
    other = replace(policy("other"), allowlist=Selector(role=globs("app_web")))
    answer = skipped(decision(session(), UNFIT, above, other))
    assert (answer.by, answer.policy) == (by, above)


@pytest.mark.parametrize(
    ("allowlist", "reason"),
    [
        (Selector(application=globs("web-1")), "allowlist application 'web-1'"),
        (Selector(role=globs("app_*")), "allowlist role 'app_web' as 'app_*'"),
        (Selector(role=globs("other"), database=globs("shop")), "allowlist database 'shop'"),
    ],
)
def test_an_allowlist_beats_a_match_with_any_of_its_values(allowlist: Selector, reason: str) -> None:
    answer = skipped(decision(session(), replace(policy(), allowlist=allowlist)))
    assert (answer.by, answer.reason) == (SkipReason.ALLOWLIST, reason)


def test_the_allowlist_says_metabase_as_people_write_it() -> None:
    careful = replace(policy(), allowlist=Selector(application=globs("metabase")))
    assert decision(session(application="metabase"), careful).reason == "allowlist application 'metabase'"


def test_an_allowlist_spares_only_whom_it_names() -> None:
    careful = replace(policy(), allowlist=Selector(application=globs("metabase")))
    assert is_reaped(session(application="metabase2"), careful)


def test_an_empty_name_is_a_name_and_an_unknown_one_is_none() -> None:
    nameless = policy(match=replace(IDLE_10M, selector=Selector(application=globs(""))))
    assert is_reaped(session(application=""), nameless)
    assert not is_reaped(session(application=None), nameless)


def test_a_policy_that_is_off_does_nothing_at_all() -> None:
    decided = plan(snapshot(session()), policy(mode=Mode.DISABLED))
    assert (decided.candidates, decided.dry_run_candidates, reasons(decided)) == (
        (),
        (),
        ["no policy matches"],
    )


def test_without_policies_everybody_is_spared() -> None:
    assert reasons(plan(snapshot(session(1000), session(1001)))) == ["no policy matches"] * 2


def test_an_empty_server_has_an_empty_plan() -> None:
    assert plan(snapshot(), policy()).decisions == ()


def test_decisions_stand_in_the_order_of_identities() -> None:
    seen = snapshot(session(300), session(100, idle="1m"), session(200, listens=True))
    assert [answer.session.id.pid for answer in plan(seen, policy()).decisions] == [100, 200, 300]


def test_a_pid_that_was_used_again_is_another_session() -> None:
    before, after = session(100, connected="5h"), session(100, connected="1m", idle="5s")
    decided = plan(snapshot(after, before), policy())
    assert [candidate.session for candidate in decided.candidates] == [before]
    assert [skip.session for skip in decided.skips] == [after]
