"""The advice on enforcing a policy, and its summary."""

import pytest

from reaper.insight.dryrun.assessment import ENOUGH, Advice, Assessment, assess
from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.insight.dryrun.regret import DryRun, upper_bound
from reaper.policy.time import Timestamp, parse_duration
from tests.unit.policy.build import NOW

from .dry_runs import dry_run, dry_runs

UNUSED, LEFT, USED_AGAIN = DryRunOutcome.UNUSED, DryRunOutcome.LEFT, DryRunOutcome.USED_AGAIN


def assessed(*seen: DryRun) -> Assessment:
    (one,) = assess(seen)
    return one


def test_a_policy_is_safe_if_none_of_many_sessions_was_used_again() -> None:
    one = assessed(*dry_runs(54, UNUSED), *dry_runs(6, LEFT))
    assert one.advice is Advice.SAFE
    assert one.summary == (
        "safe to enforce by what was seen: none of 60 used again, less than 6.02% with 95% confidence; "
        "6 left by themselves, maybe after a last use"
    )


def test_few_dry_runs_are_too_little_for_safe() -> None:
    one = assessed(*dry_runs(12, UNUSED), *dry_runs(3, None, after="1s"))
    assert one.advice is Advice.TOO_LITTLE
    known = "12 of 15 have a known outcome, 35 are needed"
    assert one.summary == f"too little seen: none was used again so far; {known}"
    assert upper_bound(0, ENOUGH) < 0.1 < upper_bound(0, ENOUGH - 1)


def test_many_closed_sessions_are_too_little_for_safe() -> None:
    one = assessed(*dry_runs(53, UNUSED), *dry_runs(7, LEFT, application="batch-3"))
    assert one.advice is Advice.TOO_LITTLE
    assert one.summary == (
        "too little seen: 7 of 60 were closed, all of batch-*; a use just before cannot be excluded"
    )


def test_few_dry_runs_are_enough_for_not_yet() -> None:
    one = assessed(*dry_runs(2, USED_AGAIN, after="5m", application="checkout-1"), *dry_runs(10, UNUSED))
    assert one.advice is Advice.NOT_YET
    assert one.summary == (
        "not yet: 2 of 12 used again, all of checkout-*; at idle_for: 16m it would have been none of 10"
    )


def test_one_percent_used_again_is_not_yet() -> None:
    assert assessed(dry_run(USED_AGAIN), *dry_runs(100, UNUSED)).advice is Advice.SAFE
    assert assessed(dry_run(USED_AGAIN), *dry_runs(99, UNUSED)).advice is Advice.NOT_YET


def test_the_summary_says_if_no_limit_would_do() -> None:
    one = assessed(dry_run(USED_AGAIN, after="2h"), *dry_runs(10, UNUSED))
    assert one.summary.endswith("no limit among the idle times seen would do")


def test_active_sessions_get_a_limit_for_running_for() -> None:
    one = assessed(
        *(each._replace(active=True) for each in [dry_run(USED_AGAIN, after="5m"), *dry_runs(9, LEFT)])
    )
    assert "at running_for: 16m" in one.summary


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["checkout-1", "checkout-2", "metabase"], "mostly checkout-*"),
        (["metabase"], "all of metabase"),
        ([""], "all of (unnamed)"),
        (["17"], "all of 17"),
        (["a", "b"], "of 2 kinds of application"),
    ],
)
def test_the_summary_names_the_applications_that_were_used_again(names: list[str], said: str) -> None:
    assert f", {said};" in assessed(*(dry_run(USED_AGAIN, application=name) for name in names)).summary


def test_every_policy_and_every_application_is_counted_separately() -> None:
    other = dry_run(USED_AGAIN)._replace(policy="other", server="billing")
    dry, another = assess(
        [other, *dry_runs(3, UNUSED, application="b"), dry_run(USED_AGAIN, application="a", after="5m")]
    )
    assert (dry.policy, another.policy) == ("dry", "other")
    assert [(name, regret.total, regret.used_again) for name, regret in dry.applications] == [
        ("b", 3, 0),
        ("a", 1, 1),
    ]
    assert dry.servers == 1
    assert dry.used_again_after == parse_duration("5m")


def test_dry_runs_of_an_earlier_policy_file_are_left_out() -> None:
    before = [each._replace(rules="old", at=Timestamp(NOW - 1)) for each in dry_runs(4, USED_AGAIN)]
    now = [each._replace(rules="new") for each in dry_runs(50, UNUSED)]
    one = assessed(*before, *now)
    assert (one.rules, one.earlier, one.regret.total, one.advice) == ("new", 4, 50, Advice.SAFE)
    (both,) = assess([*before, *now], by_any_rules=True)
    assert (both.earlier, both.regret.total, both.advice) == (0, 54, Advice.NOT_YET)
