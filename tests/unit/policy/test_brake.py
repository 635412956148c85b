"""A plan that takes too large a share acts on nobody."""

from dataclasses import replace

import pytest

from reaper.policy.memory import Memory
from reaper.policy.plan import Spared
from reaper.policy.rules import Brake, Keep, Policy
from reaper.policy.session import ACTIVE, WALSENDER, Session
from reaper.policy.time import Span

from .build import plan, policy, session, sessions, snapshot


def braked(share: float, above: int) -> Policy:
    return replace(policy(), brake=Brake(share=share, above=above), pace=1000)


def crowd(idle: int, busy: int) -> tuple[Session, ...]:
    """So many sessions that the policy condemns, and so many at work."""
    return (*sessions(idle), *(session(5000 + rank, state=ACTIVE) for rank in range(busy)))


@pytest.mark.parametrize(
    ("condemned", "clients", "share", "above", "trips"),
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
def test_a_brake_trips_above_its_number_and_above_its_share(
    condemned: int, clients: int, share: float, above: int, *, trips: bool
) -> None:
    assert Brake(share=share, above=above).trips(condemned, clients) is trips


@pytest.mark.parametrize("percent", range(1, 101))
def test_exactly_the_share_is_not_above_it_whatever_the_share(percent: int) -> None:
    brake = Brake(share=percent / 100, above=0)
    assert not brake.trips(percent, 100)
    assert brake.trips(percent + 1, 100)


def test_a_policy_whose_brake_trips_acts_on_nobody_and_raises_the_alarm() -> None:
    decided = plan(snapshot(*crowd(6, 5)), braked(0.5, 5))
    assert decided.reaps == ()
    reason = "brake: would take 6 of 11 client sessions, acts on nobody above 50%"
    assert [(spare.by, spare.reason) for spare in decided.spares[:6]] == [(Spared.BRAKE, reason)] * 6
    (trip,) = decided.brakes
    assert (trip.policy.name, trip.condemned, trip.clients, trip.reason) == ("leaked", 6, 11, reason)


def test_exactly_the_share_is_carried_out() -> None:
    decided = plan(snapshot(*crowd(6, 6)), braked(0.5, 5))
    assert (len(decided.reaps), decided.brakes) == (6, ())


def test_a_share_with_a_fraction_is_told_with_it() -> None:
    (trip,) = plan(snapshot(*crowd(6, 5)), braked(0.125, 5)).brakes
    assert trip.reason.endswith("acts on nobody above 12.5%")


def test_every_policy_has_a_brake_unless_it_says_otherwise() -> None:
    assert plan(snapshot(*crowd(6, 0)), policy()).reaps == ()
    assert plan(snapshot(*crowd(5, 0)), policy()).reaps


def test_a_policy_without_a_brake_may_take_everybody() -> None:
    emergency = replace(policy(), brake=None, pace=1000)
    assert len(plan(snapshot(*crowd(50, 0)), emergency).reaps) == 50


def test_the_brake_counts_what_the_policy_condemns_and_not_what_its_pace_leaves() -> None:
    slow = replace(braked(0.5, 5), pace=1)
    assert plan(snapshot(*crowd(6, 5)), slow).brakes


def test_the_brake_counts_those_seen_for_the_first_time() -> None:
    assert plan(snapshot(*crowd(6, 5)), braked(0.5, 5), memory=Memory()).brakes


def test_the_brake_does_not_count_whom_the_policy_keeps() -> None:
    kept = replace(braked(0.5, 5), keep=Keep(newest=1, per=("role",)))
    assert len(plan(snapshot(*crowd(6, 5)), kept).reaps) == 5


def test_walsenders_are_no_clients_of_whom_a_share_could_be_taken() -> None:
    senders = tuple(session(6000 + rank, kind=WALSENDER) for rank in range(50))
    assert plan(snapshot(*crowd(6, 5), *senders), braked(0.5, 5)).brakes


def test_the_brake_of_one_policy_does_not_stop_another() -> None:
    idle, aborted = braked(0.1, 0), policy("other", replace(policy().match, states=("active",)))
    other = replace(aborted, match=replace(aborted.match, idle_for=None, connected_for=Span(1)))
    decided = plan(snapshot(*crowd(3, 2)), idle, other)
    assert [reap.policy.name for reap in decided.reaps] == ["other", "other"]
    assert [trip.policy.name for trip in decided.brakes] == ["leaked"]


def test_a_session_whose_policy_is_braked_does_not_fall_to_the_next() -> None:
    decided = plan(snapshot(*crowd(6, 5)), braked(0.5, 5), replace(policy("next"), brake=None))
    assert decided.reaps == ()
