"""A leak, a pool that is too large, and a busy one are three things."""

import pytest

from reaper.insight.advice.finding import Confidence, Urgency
from tests.unit.policy.build import session

from .scenes import USABLE, crowd, evidence, findings, ground, leak, look, pool, role, sql, topics, used


def test_an_application_that_opens_sessions_while_others_are_idle_seems_to_leak() -> None:
    seen = evidence(look(leak(20)), ground=ground(role()))

    (found,) = findings(seen, "leak")

    assert (found.role, found.application) == ("app_web", "web-1")
    assert found.urgency is Urgency.SOON
    assert found.confidence is Confidence.POSSIBLE
    assert "20 of its 20 sessions (100%)" in found.evidence[0]
    assert found.evidence[1].startswith("18 were opened")


def test_growth_makes_it_likely() -> None:
    newcomer = session(9, idle="0s", connected="0s")
    seen = evidence(look(leak(20)), look([*leak(20), newcomer], after="10s"))

    (found,) = findings(seen, "leak")

    assert found.confidence is Confidence.LIKELY
    assert any("it opened 1, closed 0" in said for said in found.evidence)


@pytest.mark.parametrize(("count", "suspected"), [(4, False), (5, True)])
def test_a_few_idle_sessions_are_no_leak(count: int, suspected: bool) -> None:  # noqa: FBT001
    assert bool(findings(evidence(look(leak(count))), "leak")) is suspected


def test_a_pool_that_was_filled_at_once_is_no_leak_but_too_large() -> None:
    seen = evidence(look(pool(40, idle="1h", connected="2h")), look(pool(40), after="10s"))

    assert "leak" not in topics(seen)
    (found,) = findings(seen, "large pool")
    assert found.urgency is Urgency.WORTH
    assert "at most 2 for each of 1 instance (now up to 40)" in found.fixes[0].setting


def test_a_pool_that_grew_in_a_burst_is_no_leak() -> None:
    # Each was opened while the others were at work: they fell idle later than the last was opened.
    burst = [session(rank, connected=f"{60 + rank}m", idle="50m") for rank in range(30)]

    assert "leak" not in topics(evidence(look(burst)))


def test_a_pool_that_renews_its_connections_is_no_leak() -> None:
    before = leak(20)
    renewed = [*before[1:], session(9, idle="0s", connected="0s")]

    assert "leak" not in topics(evidence(look(before), look(renewed, after="10s")))


def test_a_busy_pool_is_neither_and_is_reported_only_when_slots_are_scarce() -> None:
    busy = pool(85, idle="1s")
    calm = evidence(look(busy[:70]), look(used(busy[:70], after="10s"), after="10s"))
    scarce = evidence(look(busy), look(used(busy, after="10s"), after="10s"))

    assert topics(calm) & {"leak", "large pool", "busy pool"} == set()
    assert topics(scarce) & {"leak", "large pool", "busy pool"} == {"busy pool"}


def test_those_of_other_addresses_are_no_reason_not_to_open_a_connection() -> None:
    each_its_own = [
        session(
            rank, client=f"10.2.0.{rank}", connected=f"{(rank + 2) * 10}m", idle=f"{(rank + 2) * 10 - 1}m"
        )
        for rank in range(20)
    ]

    assert crowd(look(each_its_own)).needless == 0


@pytest.mark.parametrize("application", ["pgbouncer", "pg_dump", "psql", "rdsadmin-is-a-role"])
def test_tools_are_not_suspected(application: str) -> None:
    name = "rdsadmin" if application == "rdsadmin-is-a-role" else "app_web"

    assert "leak" not in topics(evidence(look(leak(20, application=application, role=name))))


def test_at_most_five_are_reported_one_by_one() -> None:
    every = [one for rank in range(8) for one in leak(6, first=100 * rank + 1, application=f"web-{rank}")]

    found = findings(evidence(look(every)), "leak")

    assert len(found) == 6
    assert found[-1].title == "3 more applications with fewer idle sessions may leak too"


def test_when_the_slots_are_gone_it_is_urgent() -> None:
    (found,) = findings(evidence(look(leak(USABLE))), "leak")

    assert found.urgency is Urgency.NOW


def test_a_pool_that_keeps_a_few_idle_does_no_harm_while_slots_are_left() -> None:
    assert topics(evidence(look(pool(9)))) == set()
    assert "large pool" in topics(evidence(look(pool(10))))
    assert "large pool" in topics(
        evidence(look([*pool(9), *pool(75, first=5_000, application="b", idle="1s")]))
    )


def test_the_servers_own_timeout_is_proposed_where_no_other_application_is_harmed() -> None:
    (found,) = findings(evidence(look(leak(20)), ground=ground(role())), "leak")

    assert sql(found) == "ALTER ROLE \"app_web\" SET idle_session_timeout = '30min';"


def test_it_is_not_proposed_for_a_role_that_a_pooler_uses() -> None:
    seen = evidence(look([*leak(20), session(7, application="pgbouncer")]), ground=ground(role()))

    (found,) = findings(seen, "leak")

    assert sql(found) == ""
    assert any("a pooler of this role would" in fix.action for fix in found.fixes)


@pytest.mark.parametrize(("major", "proposed"), [(13, False), (14, True)])
def test_it_is_proposed_only_where_the_server_has_it(major: int, proposed: bool) -> None:  # noqa: FBT001
    (found,) = findings(evidence(look(leak(20)), ground=ground(role(), major=major)), "leak")

    assert bool(sql(found)) is proposed


def test_it_lies_above_the_waits_that_ended() -> None:
    # Thirty sessions came back after an hour each: whatever is idle for less may come back too.
    slow = pool(30, first=5_000, application="slow", idle="1h")
    seen = evidence(
        look([*leak(20), *slow]),
        look([*leak(20), *used(slow, after="5s")], after="5s"),
        ground=ground(role()),
    )

    (found,) = findings(seen, "leak")

    assert "'4h'" not in sql(found)
    assert sql(found) == ""  # three hours and more would end none of the leaked sessions


def test_it_is_not_proposed_where_there_is_one_already() -> None:
    (found,) = findings(evidence(look(leak(20)), ground=ground(role(), idle_session_timeout="60000")), "leak")

    assert sql(found) == ""


def test_over_a_long_history_only_the_last_hour_says_whether_it_grows() -> None:
    # A day ago everything was closed and opened again, as at a release; since then it only grows.
    before = pool(60, first=5_000, connected="30h", idle="30h")
    seen = evidence(
        look(before, after="0s"),
        look(leak(10), after="1s"),
        look([*leak(10), *leak(3, first=7_000)], after="5h"),
    )

    (found,) = findings(seen, "leak")

    assert found.confidence is Confidence.LIKELY
    assert "in the last 1h it opened 3, closed 0 and used 0" in found.evidence
