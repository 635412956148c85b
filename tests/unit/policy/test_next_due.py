"""The sessions that are due next."""

from dataclasses import replace

from reaper.policy.deadline import soonest
from reaper.policy.match import Match
from reaper.policy.rules import Mode, Rules
from reaper.policy.selector import Selector
from reaper.policy.session import IDLE, Facts
from reaper.policy.time import parse_duration

from .build import IDLE_10M, ago, globs, policy, session, snapshot

IDLE_5M = Match(states=(IDLE,), idle_for=parse_duration("5m"))


def test_the_next_due_sessions_come_in_order_each_once_and_limited() -> None:
    seen = snapshot(*(session(100 + age, idle=f"{age}m") for age in (1, 9, 4, 7)))
    rules = Rules(policies=(policy("ten", IDLE_10M), policy("five", IDLE_5M, mode=Mode.DRY_RUN)))

    found = soonest(seen, rules, most=9)

    assert soonest(seen, rules, most=3) == found[:3]
    assert [(due.session.id.pid, due.policy.name, due.at) for due in found] == [
        (109, "ten", ago("9m") + parse_duration("10m")),
        (104, "five", ago("4m") + parse_duration("5m")),
        (107, "ten", ago("7m") + parse_duration("10m")),
        (101, "five", ago("1m") + parse_duration("5m")),
    ]


def test_due_allowed_protected_unknown_and_unmatched_sessions_are_left_out() -> None:
    seen = snapshot(
        session(8, idle="11m"),
        session(2, idle="9m", application="metabase"),
        session(3, idle="9m", listens=True),
        session(4, idle="9m", state=None),
        session(5, idle="9m", state="active"),
        session(6, idle="9m", role="migrator"),
        facts=Facts(),
    )
    ten = replace(policy(), allowlist=Selector(application=globs("metabase")))

    assert soonest(seen, Rules(policies=(ten,), protect=Selector(role=globs("migrator"))), most=9) == ()


def test_unread_advisory_locks_hide_no_session() -> None:
    seen = snapshot(session(2, idle="9m"), facts=Facts())

    assert [due.session.id.pid for due in soonest(seen, Rules(policies=(policy(),)), most=9)] == [2]


def test_a_disabled_policy_makes_no_session_due() -> None:
    rules = Rules(policies=(policy(mode=Mode.DISABLED),))

    assert soonest(snapshot(session(2, idle="9m")), rules, most=9) == ()
