"""The safety limit: a plan with too large a share of the sessions terminates nothing."""

from dataclasses import replace

import pytest

from reaper.policy.memory import Memory
from reaper.policy.plan import SkipReason
from reaper.policy.rules import Keep, Policy, SafetyLimit
from reaper.policy.session import ACTIVE, WALSENDER, Session
from reaper.policy.time import Duration

from .build import plan, policy, session, sessions, snapshot


def tripped(share: float, above: int) -> Policy:
    return replace(policy(), safety_limit=SafetyLimit(share=share, above=above), max_per_cycle=1000)


def crowd(idle: int, busy: int) -> tuple[Session, ...]:
    """Idle sessions that the policy matches, and active ones."""
    return (*sessions(idle), *(session(5000 + rank, state=ACTIVE) for rank in range(busy)))


@pytest.mark.parametrize(
    ("matched", "clients", "share", "above", "trips"),
    [
        (5, 5, 0.5, 5, False),
        (6, 6, 0.5, 5, True),
        (6, 12, 0.5, 5, False),
        (6, 11, 0.5, 5, True),
        (7, 12, 0.5, 5, True),
        (0, 0, 0.0, 0, False),
        (1, 1, 0.0, 0, True),
        (1, 0, 1.0, 0, True),
        (9, 9, 1.0, 0, False),
        (29, 100, 0.29, 5, False),
        (30, 100, 0.29, 5, True),
        (57, 100, 0.57, 5, False),
        (1, 1000, 0.0, 1, False),
    ],
)
def test_a_safety_limit_trips_above_its_number_and_its_share(
    matched: int, clients: int, share: float, above: int, *, trips: bool
) -> None:
    assert SafetyLimit(share=share, above=above).trips(matched, clients) is trips


@pytest.mark.parametrize("percent", range(1, 101))
def test_exactly_the_share_does_not_trip_the_limit(percent: int) -> None:
    safety_limit = SafetyLimit(share=percent / 100, above=0)
    assert not safety_limit.trips(percent, 100)
    assert safety_limit.trips(percent + 1, 100)


def test_a_policy_above_its_safety_limit_terminates_nothing_and_reports_it() -> None:
    decided = plan(snapshot(*crowd(6, 5)), tripped(0.5, 5))
    assert decided.candidates == ()
    reason = "safety limit: 6 of 11 clients (54.5%) > 50%"
    assert [(skip.by, skip.reason) for skip in decided.skips[:6]] == [(SkipReason.SAFETY_LIMIT, reason)] * 6
    (trip,) = decided.trips
    assert (trip.policy.name, trip.matched, trip.clients, trip.reason) == ("leaked", 6, 11, reason)


def test_a_plan_of_exactly_the_share_is_carried_out() -> None:
    decided = plan(snapshot(*crowd(6, 6)), tripped(0.5, 5))
    assert (len(decided.candidates), decided.trips) == (6, ())


def test_a_share_with_a_fraction_is_shown_with_it() -> None:
    (trip,) = plan(snapshot(*crowd(6, 5)), tripped(0.125, 5)).trips
    assert trip.reason.endswith("> 12.5%")


def test_every_policy_has_a_safety_limit_by_default() -> None:
    assert plan(snapshot(*crowd(6, 0)), policy()).candidates == ()
    assert plan(snapshot(*crowd(5, 0)), policy()).candidates


def test_a_policy_without_a_safety_limit_may_terminate_all_sessions() -> None:
    emergency = replace(policy(), safety_limit=None, max_per_cycle=1000)
    assert len(plan(snapshot(*crowd(50, 0)), emergency).candidates) == 50


def test_the_safety_limit_counts_matches_above_max_per_cycle() -> None:
    slow = replace(tripped(0.5, 5), max_per_cycle=1)
    assert plan(snapshot(*crowd(6, 5)), slow).trips


def test_the_safety_limit_counts_sessions_seen_for_the_first_time() -> None:
    assert plan(snapshot(*crowd(6, 5)), tripped(0.5, 5), memory=Memory()).trips


def test_the_safety_limit_does_not_count_kept_sessions() -> None:
    kept = replace(tripped(0.5, 5), keep=Keep(newest=1, per=("role",)))
    assert len(plan(snapshot(*crowd(6, 5)), kept).candidates) == 5


def test_walsenders_do_not_count_as_client_sessions() -> None:
    senders = tuple(session(6000 + rank, kind=WALSENDER) for rank in range(50))
    assert plan(snapshot(*crowd(6, 5), *senders), tripped(0.5, 5)).trips


def test_the_safety_limit_of_one_policy_does_not_stop_another() -> None:
    idle, aborted = tripped(0.1, 0), policy("other", replace(policy().match, states=("active",)))
    other = replace(aborted, match=replace(aborted.match, idle_for=None, connected_for=Duration(1)))
    decided = plan(snapshot(*crowd(3, 2)), idle, other)
    assert [candidate.policy.name for candidate in decided.candidates] == ["other", "other"]
    assert [trip.policy.name for trip in decided.trips] == ["leaked"]


def test_a_session_of_a_stopped_policy_does_not_fall_to_the_next_policy() -> None:
    decided = plan(snapshot(*crowd(6, 5)), tripped(0.5, 5), replace(policy("next"), safety_limit=None))
    assert decided.candidates == ()
