"""Leaks, pools that are too large, and pools in full use are different findings."""

from collections.abc import Sequence

import pytest

from reaper.insight.advice.finding import Confidence, Urgency
from reaper.policy.session import Session
from tests.unit.policy.build import session

from .scenes import busy, evidence, findings, ground, leak, look, pool, role, sql, topics, used


def test_an_application_that_opens_sessions_while_others_are_idle_seems_to_leak() -> None:
    (found,) = findings(evidence(look(leak(20)), ground=ground(role())), "leak")

    assert (found.role, found.application) == ("app_web", "web-1")
    assert (found.urgency, found.confidence) == (Urgency.SOON, Confidence.POSSIBLE)
    assert "20 of its 20 sessions (100%)" in found.evidence[0]
    assert found.evidence[1].startswith("18 were opened")
    assert sql(found) == "ALTER ROLE \"app_web\" SET idle_session_timeout = '30min';"


def test_growth_makes_a_leak_likely() -> None:
    newcomer = session(9, idle="0s", connected="0s")

    (found,) = findings(evidence(look(leak(20)), look([*leak(20), newcomer], after="10s")), "leak")

    assert found.confidence is Confidence.LIKELY
    assert any("it opened 1, closed 0" in sentence for sentence in found.evidence)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([leak(4)], id="a few idle sessions"),
        pytest.param([pool(40), pool(40)], id="a pool that was filled at once"),
        # Each was opened while the others were in use: they became idle later than the last was opened.
        pytest.param([[session(n, connected=f"{60 + n}m", idle="50m") for n in range(30)]], id="a burst"),
        pytest.param(
            [leak(20), [*leak(20)[1:], session(9, idle="0s", connected="0s")]], id="a pool that renews itself"
        ),
        pytest.param(
            [[one for n in range(20) for one in leak(1, first=n, client=f"10.2.0.{n}")]], id="one per address"
        ),
        *(pytest.param([leak(20, application=name)], id=name) for name in ("pgbouncer", "pg_dump", "psql")),
        pytest.param([leak(20, role="rdsadmin")], id="a managed service"),
    ],
)
def test_no_leak_is_suspected_of(looks: Sequence[Sequence[Session]]) -> None:
    seen = [look(sessions, after=f"{10 * number}s") for number, sessions in enumerate(looks)]

    assert "leak" not in topics(evidence(*seen))


def test_at_most_five_leaks_are_reported_one_by_one() -> None:
    every = [one for rank in range(8) for one in leak(6, first=100 * rank + 1, application=f"web-{rank}")]

    found = findings(evidence(look(every)), "leak")

    assert len(found) == 6
    assert found[-1].title == "3 more applications with fewer idle sessions may leak too"


def test_a_leak_is_urgent_when_no_slot_is_free() -> None:
    assert findings(evidence(look(leak(100))), "leak")[0].urgency is Urgency.NOW


def test_only_the_last_hour_of_a_long_history_shows_whether_an_application_grows() -> None:
    # A day ago everything was closed and opened again, as at a release; since then it only grows.
    before = pool(60, first=5_000, connected="30h", idle="30h")
    grown = [*leak(10), *leak(3, first=7_000)]

    (found,) = findings(evidence(look(before), look(leak(10), after="1s"), look(grown, after="5h")), "leak")

    assert found.confidence is Confidence.LIKELY
    assert "in the last 1h it opened 3, closed 0 and used 0" in found.evidence


@pytest.mark.parametrize(("major", "timeout"), [(13, "0"), (17, "60000")])
def test_no_timeout_is_proposed_where_the_server_has_none_or_one_is_set(major: int, timeout: str) -> None:
    facts = ground(role(), major=major, idle_session_timeout=timeout)

    (found,) = findings(evidence(look(leak(20)), ground=facts), "leak")

    assert sql(found) == ""


def test_no_timeout_is_proposed_for_a_role_that_a_pooler_uses() -> None:
    seen = evidence(look([*leak(20), session(7, application="pgbouncer")]), ground=ground(role()))

    (found,) = findings(seen, "leak")

    assert sql(found) == ""
    assert any("a pooler of this role would lose its connections" in fix.action for fix in found.fixes)


def test_no_timeout_is_proposed_that_would_end_sessions_which_are_used_again() -> None:
    # Thirty sessions were used again after an hour: three hours would end none of the leaked ones.
    slow = pool(30, first=5_000, application="slow", idle="1h")
    later = look([*leak(20), *used(slow, after="5s")], after="5s")

    (found,) = findings(evidence(look([*leak(20), *slow]), later, ground=ground(role())), "leak")

    assert sql(found) == ""


def test_a_pool_with_many_idle_sessions_is_too_large() -> None:
    (found,) = findings(evidence(look(pool(40)), look(pool(40), after="10s")), "large pool")

    assert found.urgency is Urgency.WORTH
    assert "at most 2 for each of 1 instance (now up to 40)" in found.fixes[0].setting


def test_a_pool_may_keep_a_few_idle_sessions_while_slots_are_free() -> None:
    others = busy(75, first=5_000, application="b")

    assert topics(evidence(look(pool(9)))) == set()
    assert "large pool" in topics(evidence(look(pool(10))))
    assert "large pool" in topics(evidence(look([*pool(9), *others])))


@pytest.mark.parametrize(("count", "reported"), [(70, set()), (85, {"busy pool"})])
def test_a_pool_in_full_use_is_reported_only_if_slots_are_scarce(count: int, reported: set[str]) -> None:
    seen = evidence(look(busy(count)), look(used(busy(count), after="10s"), after="10s"))

    assert topics(seen) & {"leak", "large pool", "busy pool"} == reported


@pytest.mark.parametrize(("opened", "after", "reported"), [(19, "10s", 0), (20, "10s", 1), (100, "1h", 0)])
def test_clients_that_reconnect_all_the_time_need_a_pooler(opened: int, after: str, reported: int) -> None:
    seen = evidence(
        look(busy(5)),
        look(used(busy(5), after=after), after=after),
        before=ground(role(), opened=1_000),
        ground=ground(role(), opened=1_000 + opened, after=after),
    )

    found = findings(seen, "pooler")

    assert len(found) == reported
    for each in found:
        assert each.evidence[0].startswith("2.0 connections a second, counted by the server")
        assert "pool_mode = transaction" in each.fixes[0].setting


def test_before_14_connections_are_counted_in_snapshots() -> None:
    opened = [session(5_000 + n, connected="0s", idle="0s") for n in range(40)]
    facts = ground(role(), major=13, opened=None)

    (found,) = findings(
        evidence(look(busy(2)), look([*busy(2), *opened], after="10s"), ground=facts, before=facts), "pooler"
    )

    assert found.evidence[0].startswith("4.0 connections a second, counted in snapshots")


def test_many_sessions_of_which_few_are_active_can_share_connections() -> None:
    leaky = [*busy(90), *leak(8, application="leaky")]

    assert "pooler" in topics(evidence(look(busy(90)), look(busy(90), after="10s")))
    assert "pooler" not in topics(evidence(look(busy(90))))
    assert "pooler" not in topics(evidence(look(leaky), look(leaky, after="10s")))


@pytest.mark.parametrize(("each", "reported"), [(30, 0), (40, 1)])
def test_pool_sizes_leave_room_for_one_more_instance_of_each_application(each: int, reported: int) -> None:
    both = [*busy(each, client="10.2.0.7"), *busy(each, first=5_000, client="10.2.0.8")]

    found = findings(evidence(look(both), look(used(both, after="5s"), after="5s")), "pool sizes")

    line = "'web-1' of 'app_web': at most 30 for each of 2 instances (now up to 40)"
    assert [one.fixes[0].setting for one in found] == [line] * reported


def test_no_smaller_pool_is_proposed_because_of_a_leak() -> None:
    every = [*leak(40), *busy(45, application="orders")]

    found = topics(evidence(look(every), look(every, after="5s")))

    assert {"leak", "slots"} <= found
    assert "pool sizes" not in found
