"""When a policy acts: under pressure, and inside its hours."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from reaper.policy.plan import SkipReason
from reaper.policy.rules import When, Window
from reaper.policy.session import Slots
from reaper.policy.time import Timestamp

from .build import ago, instant, plan, policy, session, skipped, snapshot

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = frozenset(range(7))
WORKING_DAYS = frozenset(range(5))
MON, SAT, SUN = frozenset({0}), frozenset({5}), frozenset({6})


def clock(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def window(days: frozenset[int], start: str, end: str, zone: ZoneInfo = BERLIN) -> Window:
    return Window(days=days, start=clock(start), end=clock(end), zone=zone, text=f"{start}-{end}")


# 2025-06-16 is a Monday; Berlin is two hours ahead of UTC in June.
@pytest.mark.parametrize(
    ("stretch", "moment", "inside"),
    [
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-16T09:00:00+02:00", True),
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-16T08:59:59.999999+02:00", False),
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-16T16:59:59.999999+02:00", True),
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-16T17:00:00+02:00", False),
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-21T12:00:00+02:00", False),
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-16T07:00:00+00:00", True),
        (window(WORKING_DAYS, "09:00", "17:00"), "2025-06-16T16:00:00+00:00", False),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-16T20:00:00+02:00", True),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-16T19:59:59+02:00", False),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-17T05:59:59+02:00", True),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-17T06:00:00+02:00", False),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-21T05:59:59+02:00", True),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-21T20:00:00+02:00", False),
        (window(WORKING_DAYS, "20:00", "06:00"), "2025-06-16T05:59:59+02:00", False),
        (window(SUN, "20:00", "06:00"), "2025-06-16T05:59:59+02:00", True),
        (window(SUN, "20:00", "06:00"), "2025-06-15T05:59:59+02:00", False),
        (window(MON, "20:00", "06:00"), "2025-06-15T23:00:00+02:00", False),
        (window(SAT, "00:00", "24:00"), "2025-06-21T00:00:00+02:00", True),
        (window(SAT, "00:00", "24:00"), "2025-06-21T23:59:59.999999+02:00", True),
        (window(SAT, "00:00", "24:00"), "2025-06-22T00:00:00+02:00", False),
        (window(SAT, "18:00", "24:00"), "2025-06-22T00:00:00+02:00", False),
        (window(SAT, "00:00", "00:00"), "2025-06-21T13:00:00+02:00", True),
        (window(SAT, "00:00", "00:00"), "2025-06-22T00:00:00+02:00", False),
        (window(SAT, "06:00", "06:00"), "2025-06-22T05:59:59+02:00", True),
        (window(SAT, "06:00", "06:00"), "2025-06-21T05:59:59+02:00", False),
        (window(EVERY_DAY, "00:00", "24:00"), "2025-06-18T12:34:56+02:00", True),
        (window(frozenset(), "00:00", "24:00"), "2025-06-18T12:34:56+02:00", False),
    ],
)
def test_a_window_holds_from_its_first_minute_to_before_its_last(
    stretch: Window, moment: str, *, inside: bool
) -> None:
    assert stretch.holds(instant(moment)) is inside


@pytest.mark.parametrize(
    ("start", "end", "moment", "inside"),
    [
        # On 2025-03-30 the clock goes from 02:00 to 03:00 at 01:00 UTC.
        ("01:00", "02:00", "2025-03-30T00:59:59+00:00", True),
        ("01:00", "02:00", "2025-03-30T01:00:00+00:00", False),
        ("02:00", "03:00", "2025-03-30T00:59:59+00:00", False),
        ("02:00", "03:00", "2025-03-30T01:00:00+00:00", False),
        ("03:00", "04:00", "2025-03-30T01:00:00+00:00", True),
        # On 2025-10-26 it goes from 03:00 back to 02:00 at 01:00 UTC: that hour happens twice.
        ("02:00", "03:00", "2025-10-26T00:00:00+00:00", True),
        ("02:00", "03:00", "2025-10-26T01:59:59+00:00", True),
        ("02:00", "03:00", "2025-10-26T02:00:00+00:00", False),
        ("03:00", "04:00", "2025-10-26T01:30:00+00:00", False),
    ],
)
def test_a_window_goes_by_the_clock_on_the_wall_when_that_is_changed(
    start: str, end: str, moment: str, *, inside: bool
) -> None:
    assert window(SUN, start, end).holds(instant(moment)) is inside


@pytest.mark.parametrize("moment", [10**18, -(10**18), 10**30, -(10**30), 253_402_300_799_999_999])
def test_a_moment_outside_the_calendar_is_inside_no_window(moment: int) -> None:
    assert not window(EVERY_DAY, "00:00", "24:00").holds(Timestamp(moment))


def test_a_policy_rests_outside_of_its_hours_and_says_when_it_acts() -> None:
    nights = replace(policy(), during=(window(WORKING_DAYS, "20:00", "06:00"), window(SAT, "00:00", "24:00")))
    answer = skipped(plan(snapshot(session()), nights).decisions[0])
    assert (answer.by, answer.reason) == (SkipReason.DURING, "during: acts 20:00-06:00 and 00:00-24:00")


@pytest.mark.parametrize("moment", ["2025-06-18T20:00:00+02:00", "2025-06-21T12:00:00+02:00"])
def test_a_policy_acts_inside_any_of_its_windows(moment: str) -> None:
    nights = replace(policy(), during=(window(WORKING_DAYS, "20:00", "06:00"), window(SAT, "00:00", "24:00")))
    assert plan(snapshot(session(), at=instant(moment)), nights).candidates


@pytest.mark.parametrize(
    ("used", "share", "acts"),
    [
        (80, 0.8, True),
        (79, 0.8, False),
        (100, 1.0, True),
        (99, 1.0, False),
        (29, 0.29, True),
        (0, 0.01, False),
    ],
)
def test_a_policy_acts_from_its_share_of_used_slots_on(used: int, share: float, *, acts: bool) -> None:
    pressed = replace(policy(), when=When(share))
    assert bool(plan(snapshot(session(), used=used), pressed).candidates) is acts


def test_the_slots_that_ordinary_roles_cannot_use_do_not_count() -> None:
    assert Slots(total=103, reserved=3, used=80).share_used == 0.8


def test_when_every_slot_is_reserved_the_used_share_is_still_a_number() -> None:
    assert Slots(total=3, reserved=3, used=2).share_used == 2.0


@pytest.mark.parametrize(
    ("used", "share", "reason"),
    [
        (10, 0.8, "when: 10 of 100 slots used, acts from 80%"),
        (79, 0.795, "when: 79 of 100 slots used, acts from 79.5%"),
        (28, 0.29, "when: 28 of 100 slots used, acts from 29%"),
    ],
)
def test_a_policy_that_rests_says_how_much_it_waits_for(used: int, share: float, reason: str) -> None:
    answer = skipped(plan(snapshot(session(), used=used), replace(policy(), when=When(share))).decisions[0])
    assert (answer.by, answer.reason) == (SkipReason.WHEN, reason)


def test_pressure_alone_does_not_wake_a_policy_outside_of_its_hours() -> None:
    both = replace(policy(), when=When(0.05), during=(window(MON, "00:00", "24:00"),))
    assert skipped(plan(snapshot(session()), both).decisions[0]).by is SkipReason.DURING


def test_the_hours_are_those_of_the_server_and_not_of_the_session() -> None:
    mondays = replace(policy(), during=(window(MON, "00:00", "24:00"),))
    seen = session(connected="3d", idle="2d")
    assert instant("2025-06-16T12:00:00+00:00") == ago("2d")
    assert not plan(snapshot(seen), mondays).candidates
