"""Limits of connections for single roles."""

import pytest

from reaper.insight.advice.finding import Urgency

from .scenes import evidence, findings, ground, leak, look, pool, role, sql, topics


@pytest.mark.parametrize(("sessions", "reported"), [(49, False), (50, True)])
def test_a_role_that_takes_half_of_the_slots_should_have_a_limit(sessions: int, reported: bool) -> None:  # noqa: FBT001
    seen = evidence(look(pool(sessions, idle="1s")), ground=ground(role()))

    assert ("connection limit" in topics(seen)) is reported


def test_the_limit_leaves_room_above_the_most_that_was_seen() -> None:
    seen = evidence(look(pool(50, idle="1s")), ground=ground(role()))

    (found,) = findings(seen, "connection limit")

    assert sql(found) == 'ALTER ROLE "app_web" CONNECTION LIMIT 75;'


def test_the_limit_leaves_room_for_others_even_where_the_role_holds_more() -> None:
    (found,) = findings(evidence(look(pool(98, idle="1s")), ground=ground(role())), "connection limit")

    assert sql(found) == 'ALTER ROLE "app_web" CONNECTION LIMIT 90;'
    assert "none of its 98 sessions is terminated" in found.fixes[0].cost


def test_a_role_that_leaks_gets_a_limit_while_it_is_still_small() -> None:
    (found,) = findings(evidence(look(leak(10)), ground=ground(role())), "connection limit")

    assert sql(found) == 'ALTER ROLE "app_web" CONNECTION LIMIT 15;'


@pytest.mark.parametrize(
    "known", [role(superuser=True), role(limit=70), None], ids=["superuser", "limited", "unknown"]
)
def test_no_limit_is_proposed_where_it_would_not_hold_or_is_there(known: object) -> None:
    roles = [known] if known else []

    seen = evidence(look(pool(60, idle="1s")), ground=ground(*roles))  # type: ignore[arg-type] # one of three

    assert "connection limit" not in topics(seen)


def test_a_hostile_role_name_is_quoted() -> None:
    name = 'a"; DROP ROLE b; --'
    seen = evidence(look(pool(60, role=name, idle="1s")), ground=ground(role(name)))

    (found,) = findings(seen, "connection limit")

    assert sql(found) == 'ALTER ROLE "a""; DROP ROLE b; --" CONNECTION LIMIT 90;'


@pytest.mark.parametrize(
    ("sessions", "urgency"), [(17, None), (18, Urgency.SOON), (19, Urgency.SOON), (20, Urgency.NOW)]
)
def test_a_role_near_its_own_limit_is_reported(sessions: int, urgency: Urgency | None) -> None:
    seen = evidence(look(pool(sessions, idle="1s")), ground=ground(role(limit=20)))

    assert [each.urgency for each in findings(seen, "connection limit")] == ([urgency] if urgency else [])


def test_a_role_that_may_not_connect_at_all_is_near_no_limit() -> None:
    assert topics(evidence(look(pool(3, idle="1s")), ground=ground(role(limit=0)))) == set()


def test_applications_that_are_superusers_are_reported_and_consoles_are_not() -> None:
    apps = pool(3, role="postgres", superuser=True, idle="1s")
    consoles = pool(3, role="postgres", superuser=True, idle="1s", application="psql")

    assert topics(evidence(look(apps))) == {"superusers"}
    assert topics(evidence(look(apps[:2]))) == set()
    assert topics(evidence(look(consoles))) == set()
