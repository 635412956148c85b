"""keep and max_sessions: the sessions of a group that stay."""

from dataclasses import replace

import pytest

from reaper.policy.match import Match
from reaper.policy.plan import SkipReason
from reaper.policy.rules import Keep, MaxSessions, Policy
from reaper.policy.selector import Selector
from reaper.policy.session import ACTIVE, IN_TRANSACTION, WALSENDER, Session
from reaper.policy.time import parse_duration

from .build import IDLE_10M, globs, pids, plan, policy, session, sessions, snapshot


def keeping(newest: int, *per: str) -> Policy:
    return replace(
        policy(), keep=Keep(newest=newest, per=per or ("role",)), safety_limit=None, max_per_cycle=100
    )


def capped(most: int, *per: str) -> Policy:
    return replace(
        policy(),
        max_sessions=MaxSessions(most=most, per=per or ("role",)),
        safety_limit=None,
        max_per_cycle=100,
    )


OLD_NEW = (session(1001, connected="9h"), session(1002, connected="5h"), session(1003, connected="7h"))


@pytest.mark.parametrize(
    ("newest", "reaped"),
    [(0, [1001, 1002, 1003]), (1, [1001, 1003]), (2, [1001]), (3, []), (4, [])],
)
def test_the_newest_of_a_group_are_kept(newest: int, reaped: list[int]) -> None:
    decided = plan(snapshot(*OLD_NEW), keeping(newest))
    assert sorted(pids(decided.candidates)) == reaped
    assert {skip.by for skip in decided.skips} <= {SkipReason.KEEP}


def test_of_sessions_with_one_start_the_higher_pid_is_kept() -> None:
    decided = plan(snapshot(session(1001), session(1003), session(1002)), keeping(1))
    assert pids(decided.skips) == [1003]


def test_the_reason_of_a_kept_session_names_its_group() -> None:
    decided = plan(snapshot(session()), keeping(2, "role", "application"))
    assert decided.decisions[0].reason == "keep: among the newest 2 per role, application"


@pytest.mark.parametrize(
    ("per", "reaped"),
    [
        (("role",), [1001, 1002, 1003]),
        (("application",), [1001, 1002]),
        (("role", "application"), [1001, 1002]),
        (("database",), [1001, 1002, 1003]),
        (("client",), [1001, 1003]),
        (("role", "database", "application", "client"), [1001]),
    ],
)
def test_a_group_has_equal_values_in_every_key(per: tuple[str, ...], reaped: list[int]) -> None:
    seen = snapshot(
        session(1001, connected="9h"),
        session(1002, connected="8h", client=None),
        session(1003, connected="7h", application=""),
        session(1004, connected="6h"),
    )
    assert sorted(pids(plan(seen, keeping(1, *per)).candidates)) == reaped


def test_only_matching_sessions_are_kept() -> None:
    at_work = session(1004, connected="1m", state=ACTIVE)
    assert sorted(pids(plan(snapshot(*OLD_NEW, at_work), keeping(1)).candidates)) == [1001, 1003]


def test_an_unknown_name_and_an_empty_name_are_two_groups() -> None:
    seen = snapshot(session(1001, client=None), session(1002, client=""), session(1003, client=None))
    assert pids(plan(seen, keeping(1, "client")).candidates) == [1001]


def test_max_sessions_takes_the_longest_idle_sessions_above_it() -> None:
    decided = plan(snapshot(*sessions(5)), capped(3))
    assert pids(decided.candidates) == [100, 101]
    assert {skip.by for skip in decided.skips} == {SkipReason.MAX_SESSIONS}


@pytest.mark.parametrize(("most", "taken"), [(0, 5), (4, 1), (5, 0), (6, 0)])
def test_max_sessions_leaves_the_number_that_it_allows(most: int, taken: int) -> None:
    assert len(plan(snapshot(*sessions(5)), capped(most)).candidates) == taken


def test_max_sessions_counts_every_state_and_takes_only_matching_sessions() -> None:
    seen = snapshot(
        *sessions(2),
        session(1010, state=ACTIVE),
        session(1011, state=IN_TRANSACTION),
        session(1012, state=None),
        session(1013, idle="1s"),
    )
    assert pids(plan(seen, capped(5)).candidates) == [100]
    assert pids(plan(seen, capped(1)).candidates) == [100, 101]


def test_max_sessions_counts_only_sessions_of_the_policy() -> None:
    shop_only = replace(capped(2, "role"), match=replace(IDLE_10M, selector=Selector(database=globs("shop"))))
    seen = snapshot(*sessions(2), session(1010, database="stock"))
    assert plan(seen, shop_only).candidates == ()


def test_a_walsender_does_not_count_for_max_sessions() -> None:
    seen = snapshot(*sessions(2), session(1010, kind=WALSENDER))
    assert plan(seen, capped(2)).candidates == ()


def test_each_group_has_its_own_max_sessions() -> None:
    web, batch = sessions(3), tuple(replace_pid(one, 50) for one in sessions(2, application="batch"))
    assert pids(plan(snapshot(*web, *batch), capped(2, "application")).candidates) == [100]


def replace_pid(seen: Session, by: int) -> Session:
    return replace(seen, id=seen.id._replace(pid=seen.id.pid + by))


@pytest.mark.parametrize(
    ("most", "reason"),
    [
        (3, "max_sessions: its group has 3 sessions, 3 allowed per role"),
        (2, "max_sessions: its group has 3 sessions, 2 allowed per role, 1 longer idle ones first"),
    ],
)
def test_the_reason_below_max_sessions_shows_the_number_of_sessions(most: int, reason: str) -> None:
    assert plan(snapshot(*sessions(3)), capped(most)).decisions[-1].reason == reason


def test_max_sessions_and_keep_take_only_sessions_that_both_allow() -> None:
    both = replace(capped(1), keep=Keep(newest=3, per=("role",)))
    assert pids(plan(snapshot(*sessions(5)), both).candidates) == [100, 101]


def test_max_sessions_needs_the_idle_time_even_in_a_group_that_is_too_large() -> None:
    patient = replace(capped(0), match=Match(states=("idle",), idle_for=parse_duration("2h")))
    assert plan(snapshot(*sessions(5)), patient).candidates == ()
