"""Slots in use, slots in reserve, the cost of more, and the limits of single roles."""

import pytest

from reaper.insight.advice.finding import Urgency
from reaper.insight.advice.server_facts import RoleFacts

from .scenes import busy, evidence, findings, ground, leak, look, pool, role, sql, topics


@pytest.mark.parametrize(
    ("sessions", "urgency"),
    [(79, None), (80, Urgency.SOON), (94, Urgency.SOON), (95, Urgency.NOW), (100, Urgency.NOW)],
)
def test_slots_are_reported_when_they_become_scarce(sessions: int, urgency: Urgency | None) -> None:
    found = findings(evidence(look(busy(sessions))), "slots")

    assert [each.urgency for each in found] == ([urgency] if urgency else [])


def test_a_peak_that_has_passed_needs_no_action_now() -> None:
    (found,) = findings(evidence(look(busy(100)), look(busy(30), after="10s")), "slots")

    assert found.urgency is Urgency.SOON
    assert "100 at the peak" in found.evidence[0]


def test_full_slots_are_reported_with_the_applications_that_hold_them() -> None:
    (found,) = findings(evidence(look([*pool(90), *busy(10, first=5_000, application="")])), "slots")

    assert found.title == "all 100 slots that ordinary roles can use are in use: new clients are refused"
    assert "'web-1' of 'app_web' 90, unnamed of 'app_web' 10" in found.evidence[-1]


def test_more_slots_are_discussed_with_their_cost() -> None:
    (found,) = findings(evidence(look(busy(90)), ground=ground(role())), "max_connections")

    assert sql(found) == "ALTER SYSTEM SET max_connections = 153;  -- then restart"
    reported = " ".join(found.evidence)
    assert "50 more take 2 MB of shared memory at once, and 75 MB to 500 MB as idle sessions" in reported
    assert "work_mem, 4 MB" in reported
    assert "200 MB" in reported


def test_more_slots_are_not_discussed_if_they_are_not_scarce_or_the_settings_unknown() -> None:
    assert "max_connections" not in topics(evidence(look(busy(79)), ground=ground(role())))
    assert "max_connections" not in topics(evidence(look(busy(90))))


@pytest.mark.parametrize(
    ("major", "kept", "sessions", "reported"),
    [(16, "0", 90, 1), (16, "1", 90, 1), (16, "2", 90, 0), (16, "0", 70, 0), (15, "0", 90, 0)],
)
def test_reserved_slots_for_roles_are_proposed_if_slots_are_scarce(
    major: int, kept: str, sessions: int, reported: int
) -> None:
    facts = ground(role(), major=major, reserved_connections=kept)

    found = findings(evidence(look(busy(sessions)), ground=facts), "reserved")

    grant = 'GRANT pg_use_reserved_connections TO "reaper";\n'
    statement = f"{grant}ALTER SYSTEM SET reserved_connections = 2;  -- then restart"
    assert [sql(each) for each in found] == [statement] * reported


def test_a_server_that_reserves_no_slot_for_superusers_is_always_reported() -> None:
    facts = ground(role(), superuser_reserved_connections="0")

    assert topics(evidence(look(busy(3)), ground=facts)) == {"reserved"}


@pytest.mark.parametrize(
    ("sessions", "limit"), [(busy(49), None), (busy(50), 75), (busy(98), 90), (leak(10), 15)]
)
def test_a_role_that_could_take_all_slots_gets_a_limit_that_leaves_room(
    sessions: list[object], limit: int | None
) -> None:
    found = findings(evidence(look(sessions), ground=ground(role())), "connection limit")  # type: ignore[arg-type]

    statements = [f'ALTER ROLE "app_web" CONNECTION LIMIT {limit};'] if limit else []
    assert [sql(each) for each in found] == statements


@pytest.mark.parametrize("known", [[role(superuser=True)], [role(limit=70)], []], ids=str)
def test_no_limit_is_proposed_for_superusers_limited_roles_and_unknown_ones(known: list[RoleFacts]) -> None:
    assert "connection limit" not in topics(evidence(look(busy(60)), ground=ground(*known)))


def test_a_hostile_role_name_is_quoted() -> None:
    name = 'a"; DROP ROLE b; --'

    (found,) = findings(evidence(look(busy(60, role=name)), ground=ground(role(name))), "connection limit")

    assert sql(found) == 'ALTER ROLE "a""; DROP ROLE b; --" CONNECTION LIMIT 90;'


@pytest.mark.parametrize(
    ("limit", "sessions", "urgency"),
    [(20, 17, None), (20, 18, Urgency.SOON), (20, 19, Urgency.SOON), (20, 20, Urgency.NOW), (0, 3, None)],
)
def test_a_role_near_its_own_limit_is_reported(limit: int, sessions: int, urgency: Urgency | None) -> None:
    found = findings(evidence(look(busy(sessions)), ground=ground(role(limit=limit))), "connection limit")

    assert [each.urgency for each in found] == ([urgency] if urgency else [])
