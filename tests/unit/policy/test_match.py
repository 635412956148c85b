"""The criteria of a policy: each at its boundary, and none on what is not known."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest

from reaper.policy.match import Match
from reaper.policy.plan import SkipReason
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, STATES, Facts, Session
from reaper.policy.time import Duration, Timestamp, parse_duration

from .build import (
    IDLE_10M,
    NOW,
    Told,
    ago,
    decision,
    is_reaped,
    later,
    plan,
    policy,
    session,
    skipped,
    snapshot,
)

LIMIT = parse_duration("10m")


class Age(NamedTuple):
    """An age: a policy that asks for it, and a session for which it began at a given moment."""

    asked: Callable[[Duration], Match]
    seen: Callable[[Timestamp | None], Session]


AGES = [
    pytest.param(
        Age(
            lambda limit: Match(states=(IDLE,), idle_for=limit),
            lambda began: replace(session(), state_change=began),
        ),
        id="idle_for",
    ),
    pytest.param(
        Age(
            lambda limit: Match(states=(IN_TRANSACTION,), transaction_for=limit),
            lambda began: replace(session(state=IN_TRANSACTION), xact_start=began),
        ),
        id="transaction_for",
    ),
    pytest.param(
        Age(
            lambda limit: Match(states=(ACTIVE,), running_for=limit),
            lambda began: replace(session(state=ACTIVE), query_start=began),
        ),
        id="running_for",
    ),
]


@pytest.mark.parametrize("age", AGES)
def test_an_age_that_equals_its_limit_is_enough(age: Age) -> None:
    assert is_reaped(age.seen(ago("10m")), policy(match=age.asked(LIMIT)))


@pytest.mark.parametrize("age", AGES)
def test_an_age_that_lacks_a_microsecond_is_not(age: Age) -> None:
    assert not is_reaped(age.seen(later(ago("10m"), by=1)), policy(match=age.asked(LIMIT)))


@pytest.mark.parametrize("age", AGES)
def test_an_age_that_is_not_known_is_none(age: Age) -> None:
    assert not is_reaped(age.seen(None), policy(match=age.asked(Duration(0))))


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("limit", [-2, 0, LIMIT])
def test_a_negative_age_is_none(age: Age, limit: int) -> None:
    assert not is_reaped(age.seen(later(NOW, by=1)), policy(match=age.asked(Duration(limit))))


@pytest.mark.parametrize(("by", "reaped"), [(0, True), (1, False)])
def test_a_connection_is_old_enough_at_its_limit_and_not_a_microsecond_before(
    by: int, *, reaped: bool
) -> None:
    seen = session(idle="1s")
    seen = replace(seen, id=seen.id._replace(backend_start=later(ago("10m"), by=by)))
    assert is_reaped(seen, policy(match=Match(states=(IDLE,), connected_for=LIMIT))) is reaped


@pytest.mark.parametrize(
    ("age", "reaped"), [(100, True), (99, False), (0, False), (-5, False), (None, False)]
)
def test_a_horizon_holds_back_vacuum_from_its_limit_on(age: int | None, *, reaped: bool) -> None:
    held = Match(states=(IDLE,), idle_for=LIMIT, xmin_age=100)
    assert is_reaped(session(xid_age=age), policy(match=held)) is reaped


@pytest.mark.parametrize(
    ("facts", "reaped"),
    [
        (Facts(advisory_lock_holders=frozenset(), waiters={100: 1}), True),
        (Facts(advisory_lock_holders=frozenset(), waiters={100: 0}), False),
        (Facts(advisory_lock_holders=frozenset(), waiters={101: 1}), False),
        (Facts(advisory_lock_holders=frozenset(), waiters={}), False),
        (Facts(advisory_lock_holders=frozenset(), waiters=None), False),
    ],
)
def test_a_session_blocks_when_others_are_known_to_wait_for_it(facts: Facts, *, reaped: bool) -> None:
    blocks = policy(match=Match(states=(IDLE,), idle_for=LIMIT, blocking=True))
    assert bool(plan(snapshot(session(100), facts=facts), blocks).candidates) is reaped


@pytest.mark.parametrize("wanted", STATES)
@pytest.mark.parametrize("state", STATES)
def test_a_state_is_the_one_that_was_named(wanted: str, state: str) -> None:
    matches = policy(match=Match(states=(wanted,), connected_for=LIMIT))
    assert is_reaped(session(state=state), matches) is (wanted == state)


@pytest.mark.parametrize("state", STATES)
def test_any_of_several_states_is_enough(state: str) -> None:
    assert is_reaped(session(state=state), policy(match=Match(states=STATES, connected_for=LIMIT)))


@pytest.mark.parametrize(
    "state",
    ["disabled", "starting", "fastpath function call", "", "IDLE", " idle", "idle\n", "idle in transaction "],
)
def test_a_state_that_no_policy_can_name_is_spared_as_unknown(state: str) -> None:
    careless = policy(match=Match(states=(state, IDLE), connected_for=LIMIT))
    answer = skipped(decision(session(state=state), careless))
    assert (answer.by, answer.reason) == (
        SkipReason.UNKNOWN,
        f"not known: state {state!r} is none that a policy can name",
    )


UNKNOWN: list[tuple[Told, str]] = [
    ({"state": None}, "not known: state is not known"),
    ({"idle": None}, "not known: the age of its state is not known"),
    ({"state": None, "idle": None, "running": None}, "not known: state is not known"),
    ({"kind": "parallel worker"}, "not known: kind 'parallel worker' is none that a policy can name"),
    ({"kind": "autovacuum worker"}, "not known: kind 'autovacuum worker' is none that a policy can name"),
    ({"kind": ""}, "not known: kind '' is none that a policy can name"),
]


@pytest.mark.parametrize(("told", "reason"), UNKNOWN)
def test_what_is_not_known_is_spared_whatever_a_policy_asks_for(told: Told, reason: str) -> None:
    greedy = policy(match=Match(states=STATES, connected_for=parse_duration("0s")))
    answer = skipped(decision(session(**told), greedy))
    assert (answer.by, answer.reason, answer.policy) == (SkipReason.UNKNOWN, reason, None)


def test_a_state_from_after_the_look_is_spared_even_by_a_policy_that_asks_for_another_age() -> None:
    connected = policy(match=Match(states=(IDLE,), connected_for=LIMIT))
    assert is_reaped(replace(session(), state_change=NOW), connected)
    assert not is_reaped(replace(session(), state_change=later(NOW, by=1)), connected)


@pytest.mark.parametrize("told", [{"database": None}, {"application": None}, {"client": None}])
def test_a_name_that_nobody_asks_for_may_be_unknown(told: Told) -> None:
    assert is_reaped(session(**told), policy())


def test_whose_role_is_not_known_is_spared_for_no_allowlist_could_name_it() -> None:
    (skip,) = plan(snapshot(session(role=None)), policy()).skips
    assert (skip.by, skip.reason) == (SkipReason.UNKNOWN, "not known: its role is not known")


def test_ages_from_before_the_clock_was_set_are_counted_from_there() -> None:
    old = session(idle="2h")
    set_lately = snapshot(old).counted_from(later(NOW, by=-LIMIT + 1))
    set_long_ago = snapshot(old).counted_from(later(NOW, by=-LIMIT))
    assert plan(set_lately, policy()).candidates == ()
    assert len(plan(set_long_ago, policy()).candidates) == 1


def test_who_is_at_work_is_not_idle_however_long_it_works() -> None:
    both = policy(match=Match(states=(IDLE, ACTIVE), idle_for=LIMIT))
    assert is_reaped(session(state=IDLE), both)
    assert not is_reaped(session(state=ACTIVE), both)


def test_a_query_that_is_over_runs_no_longer() -> None:
    both = policy(match=Match(states=(IDLE, ACTIVE), running_for=LIMIT))
    assert is_reaped(session(state=ACTIVE), both)
    assert not is_reaped(session(state=IDLE), both)


EVERY_CRITERION = Match(
    states=(ABORTED,),
    idle_for=LIMIT,
    transaction_for=LIMIT,
    connected_for=LIMIT,
    xmin_age=100,
    blocking=True,
)
LACKING: list[Told] = [
    {"state": IN_TRANSACTION},
    {"idle": "9m59s999ms"},
    {"in_transaction": "9m59s999ms"},
    {"in_transaction": None},
    {"connected": "9m59s999ms"},
    {"xid_age": 99},
]
BLOCKING = Facts(advisory_lock_holders=frozenset(), waiters={100: 3})


def _meets_every_criterion(lack: Told | None = None) -> Session:
    told: Told = {"state": ABORTED, "in_transaction": "1h", "xid_age": 100, **(lack or {})}
    return session(100, **told)


def test_a_session_that_meets_every_criterion_is_condemned_for_every_reason() -> None:
    (candidate,) = plan(
        snapshot(_meets_every_criterion(), facts=BLOCKING), policy(match=EVERY_CRITERION)
    ).candidates
    assert candidate.reason == (
        "idle 1h, limit 10m; in transaction 1h, limit 10m; connected 2h, limit 10m; "
        "xmin age 100 transactions, limit 100; blocks 3 sessions"
    )


@pytest.mark.parametrize("lack", LACKING)
def test_a_session_that_misses_one_criterion_is_spared(lack: Told) -> None:
    seen = snapshot(_meets_every_criterion(lack), facts=BLOCKING)
    assert skipped(plan(seen, policy(match=EVERY_CRITERION)).decisions[0]).by is SkipReason.UNMATCHED


@pytest.mark.parametrize(
    ("match", "told", "reason"),
    [
        (IDLE_10M, Told(idle="12m31s"), "idle 12m31s, limit 10m"),
        (IDLE_10M, Told(idle="10m"), "idle 10m, limit 10m"),
        (Match(states=(IDLE,), idle_for=parse_duration("90s")), Told(idle="2d3h"), "idle 2d3h, limit 1m30s"),
        (Match(states=(IDLE,), connected_for=LIMIT), Told(connected="3h"), "connected 3h, limit 10m"),
        (
            Match(states=(IN_TRANSACTION,), transaction_for=LIMIT),
            Told(state=IN_TRANSACTION, in_transaction="11m"),
            "in transaction 11m, limit 10m",
        ),
        (
            Match(states=(ACTIVE,), running_for=LIMIT),
            Told(state=ACTIVE, running="15m"),
            "running 15m, limit 10m",
        ),
        (
            Match(states=(IDLE,), idle_for=LIMIT, xmin_age=1_000),
            Told(xid_age=2_000),
            "idle 1h, limit 10m; xmin age 2000 transactions, limit 1000",
        ),
    ],
)
def test_a_reason_says_the_age_beside_its_limit(match: Match, told: Told, reason: str) -> None:
    assert decision(session(**told), policy(match=match)).reason == reason


@pytest.mark.parametrize(("count", "words"), [(1, "blocks 1 session"), (2, "blocks 2 sessions")])
def test_a_reason_says_how_many_are_held_up(count: int, words: str) -> None:
    blocks = policy(match=Match(states=(IDLE,), idle_for=LIMIT, blocking=True))
    facts = Facts(advisory_lock_holders=frozenset(), waiters={100: count})
    (candidate,) = plan(snapshot(session(100), facts=facts), blocks).candidates
    assert candidate.reason == f"idle 1h, limit 10m; {words}"


def test_a_session_that_no_policy_matches_is_told_so() -> None:
    answer = skipped(decision(session(idle="1m"), policy()))
    assert (answer.by, answer.reason, answer.policy) == (SkipReason.UNMATCHED, "no policy matches", None)


@pytest.mark.parametrize(
    ("match", "due"),
    [
        (IDLE_10M, ago("50m")),
        (
            Match(states=(IDLE,), idle_for=LIMIT, connected_for=parse_duration("3h")),
            NOW + parse_duration("1h"),
        ),
        (Match(states=(ACTIVE,), running_for=LIMIT), None),
        (Match(states=(IDLE,), transaction_for=LIMIT), None),
        (Match(states=(IDLE, ACTIVE), running_for=LIMIT), None),
    ],
)
def test_a_session_falls_due_when_the_last_age_is_reached(match: Match, due: Timestamp | None) -> None:
    assert match.due(session()) == due


def test_a_match_without_an_age_means_nobody() -> None:
    ageless = Match(states=STATES, xmin_age=1)
    assert not is_reaped(session(xid_age=100), policy(match=ageless))
    assert ageless.due(session()) is None
