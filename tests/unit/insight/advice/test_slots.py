"""How full the server is, what more slots would cost, and which roles can still connect."""

import pytest

from reaper.insight.advice.finding import Urgency

from .scenes import evidence, findings, ground, leak, look, pool, role, sql, topics, used


@pytest.mark.parametrize(
    ("sessions", "urgency"),
    [(79, None), (80, Urgency.SOON), (94, Urgency.SOON), (95, Urgency.NOW), (100, Urgency.NOW)],
)
def test_slots_are_reported_when_they_become_scarce(sessions: int, urgency: Urgency | None) -> None:
    found = findings(evidence(look(pool(sessions, idle="1s"))), "slots")

    assert [each.urgency for each in found] == ([urgency] if urgency else [])


def test_a_peak_that_has_passed_is_no_emergency() -> None:
    seen = evidence(look(pool(100, idle="1s")), look(pool(30, idle="1s"), after="10s"))

    (found,) = findings(seen, "slots")

    assert found.urgency is Urgency.SOON
    assert "100 at the peak" in found.evidence[0]


def test_full_slots_say_so_and_by_whom() -> None:
    seen = evidence(look([*pool(90, idle="1h"), *pool(10, first=5_000, application="", idle="1s")]))

    (found,) = findings(seen, "slots")

    assert found.title == "all 100 slots that ordinary roles can use are in use: new clients are refused"
    assert "'web-1' of 'app_web' 90, unnamed of 'app_web' 10" in found.evidence[-1]


def test_more_slots_are_discussed_only_when_they_are_scarce_and_with_their_cost() -> None:
    calm = evidence(look(pool(79, idle="1s")), ground=ground(role()))
    scarce = evidence(look(pool(90, idle="1s")), ground=ground(role()))

    assert "max_connections" not in topics(calm)
    (found,) = findings(scarce, "max_connections")
    assert sql(found) == "ALTER SYSTEM SET max_connections = 153;  -- then restart"
    reported = " ".join(found.evidence)
    assert "50 more take 2 MB of shared memory at once, and 75 MB to 500 MB as idle sessions" in reported
    assert "work_mem, 4 MB" in reported
    assert "200 MB" in reported


def test_without_the_settings_nothing_is_said_about_memory() -> None:
    assert "max_connections" not in topics(evidence(look(pool(90, idle="1s"))))


@pytest.mark.parametrize(
    ("major", "kept", "sessions", "reported"),
    [
        (16, "0", 90, True),
        (16, "1", 90, True),
        (16, "2", 90, False),
        (16, "0", 70, False),
        (15, "0", 90, False),
    ],
)
def test_slots_for_roles_are_proposed_where_there_are_such_and_slots_are_scarce(
    major: int,
    kept: str,
    sessions: int,
    reported: bool,  # noqa: FBT001
) -> None:
    seen = evidence(
        look(pool(sessions, idle="1s")), ground=ground(role(), major=major, reserved_connections=kept)
    )

    found = findings(seen, "reserved")

    assert bool(found) is reported
    if reported:
        assert sql(found[0]) == (
            'GRANT pg_use_reserved_connections TO "reaper";\n'
            "ALTER SYSTEM SET reserved_connections = 2;  -- then restart"
        )


def test_a_server_that_reserves_no_slot_for_superusers_is_always_reported() -> None:
    seen = evidence(look(pool(3, idle="1s")), ground=ground(role(), superuser_reserved_connections="0"))

    assert topics(seen) == {"reserved"}


def test_pools_that_are_used_are_shared_out_when_one_instance_more_would_not_fit() -> None:
    two = [*pool(40, client="10.2.0.7", idle="1s"), *pool(40, first=5_000, client="10.2.0.8", idle="1s")]
    one = evidence(look(two), look(used(two, after="5s"), after="5s"))
    small = evidence(look(two[:30] + two[40:70]), look(used(two[:30] + two[40:70], after="5s"), after="5s"))

    (found,) = findings(one, "pool sizes")

    assert found.fixes[0].setting == "'web-1' of 'app_web': at most 30 for each of 2 instances (now up to 40)"
    assert "pool sizes" not in topics(small)


def test_no_good_pool_is_to_shrink_for_a_leak() -> None:
    every = [*leak(40), *pool(45, application="orders", idle="1s")]
    seen = evidence(look(every), look(every, after="5s"))

    assert {"leak", "slots"} <= topics(seen)
    assert "pool sizes" not in topics(seen)
