"""Dead clients, tools, names, reconnecting clients, and what remains without a session."""

from dataclasses import replace
from typing import Final

import pytest

from reaper.insight.advice.finding import Urgency
from reaper.insight.advice.server_facts import PreparedTransaction, ReplicationSlot
from tests.unit.policy.build import ago, session

from .scenes import evidence, findings, ground, leak, look, pool, role, sql, topics, used

MB: Final = 1024 * 1024


@pytest.mark.parametrize(
    ("keepalive", "sessions", "client", "reported"),
    [
        ("7200", 3, "10.2.0.7", True),
        ("7200", 2, "10.2.0.7", False),
        ("7200", 3, "127.0.0.1", False),
        ("7200", 3, None, False),
        ("1799", 3, "10.2.0.7", False),
        (None, 3, "10.2.0.7", False),
    ],
)
def test_late_keepalives_matter_where_there_are_silent_clients_elsewhere(
    keepalive: str | None,
    sessions: int,
    client: str | None,
    reported: bool,  # noqa: FBT001
) -> None:
    known = ground(role())
    settings = {name: value for name, value in known.settings.items() if name != "tcp_keepalives_idle"}
    if keepalive:
        settings["tcp_keepalives_idle"] = keepalive
    seen = evidence(look(pool(sessions, client=client)), ground=replace(known, settings=settings))

    found = findings(seen, "dead clients")

    assert bool(found) is reported
    if reported:
        assert found[0].title == "a client whose machine disappeared keeps its slot for 2h11m"
        assert sql(found[0]).endswith("SELECT pg_reload_conf();")


@pytest.mark.parametrize(
    ("major", "check", "running", "reported"),
    [(14, "0", "10m", True), (14, "0", "9m", False), (14, "1000", "10m", False), (13, "0", "10m", False)],
)
def test_long_statements_may_have_lost_their_client(
    major: int,
    check: str,
    running: str,
    reported: bool,  # noqa: FBT001
) -> None:
    one = session(state="active", idle=running, running=running)
    seen = evidence(look([one]), ground=ground(role(), major=major, client_connection_check_interval=check))

    assert bool(findings(seen, "dead clients")) is reported


@pytest.mark.parametrize(("sessions", "reported"), [(5, False), (6, True)])
def test_monitoring_needs_few_sessions(sessions: int, reported: bool) -> None:  # noqa: FBT001
    tools = pool(sessions, application="postgres_exporter", role="monitor", idle="1s")

    found = findings(evidence(look(tools), ground=ground(role("monitor"))), "monitoring")

    assert [sql(each) for each in found] == (['ALTER ROLE "monitor" CONNECTION LIMIT 5;'] if reported else [])


def test_monitoring_may_have_one_session_for_each_database() -> None:
    tools = [
        session(rank, application="Datadog Agent", role="dd", database=f"db{rank}", idle="1s")
        for rank in range(2, 22)
    ]

    assert "monitoring" not in topics(evidence(look(tools)))


def test_the_role_that_an_application_shares_is_not_bounded_for_the_tools_sake() -> None:
    tools = pool(9, application="grafana", idle="1s")

    (found,) = findings(evidence(look([*tools, session(7, idle="1s")])), "monitoring")

    assert sql(found) == ""


@pytest.mark.parametrize(
    ("nameless", "named", "reported"), [(4, 0, False), (5, 0, True), (5, 20, True), (5, 21, False)]
)
def test_a_share_of_unnamed_sessions_is_reported(nameless: int, named: int, reported: bool) -> None:  # noqa: FBT001
    every = [*pool(nameless, application="", idle="1s"), *pool(named, first=5_000, idle="1s")]

    found = findings(evidence(look(every), ground=ground(role())), "names")

    assert bool(found) is reported
    if reported:
        assert "ALTER ROLE \"app_web\" SET application_name = 'app_web';" in sql(found[0])


def test_the_name_of_a_driver_is_none() -> None:
    (found,) = findings(evidence(look(pool(9, application="PostgreSQL JDBC Driver", idle="1s"))), "names")

    assert "with the name of their driver: 'PostgreSQL JDBC Driver'" in found.evidence


@pytest.mark.parametrize(("opened", "reported"), [(19, False), (20, True)])
def test_clients_that_reconnect_all_the_time_need_a_pooler(opened: int, reported: bool) -> None:  # noqa: FBT001
    web = pool(5, idle="1s")
    seen = evidence(
        look(web),
        look(used(web, after="10s"), after="10s"),
        before=ground(role(), opened=1_000),
        ground=ground(role(), opened=1_000 + opened, after="10s"),
    )

    found = findings(seen, "pooler")

    assert bool(found) is reported
    if reported:
        assert found[0].evidence[0].startswith("2.0 connections a second, counted by the server")
        assert "pool_mode = transaction" in found[0].fixes[0].setting


def test_a_hundred_connections_in_an_hour_need_no_pooler() -> None:
    web = pool(5, idle="1s")
    seen = evidence(
        look(web),
        look(used(web, after="1h"), after="1h"),
        before=ground(role(), opened=1_000),
        ground=ground(role(), opened=1_100, after="1h"),
    )

    assert "pooler" not in topics(seen)


def test_before_14_connections_are_counted_in_snapshots() -> None:
    born = [session(5_000 + n, connected="0s", idle="0s") for n in range(40)]
    seen = evidence(
        look(pool(2, idle="1s")),
        look([*pool(2, idle="1s"), *born], after="10s"),
        ground=ground(role(), major=13, opened=None),
        before=ground(role(), major=13, opened=None),
    )

    (found,) = findings(seen, "pooler")

    assert found.evidence[0].startswith("4.0 connections a second, counted in snapshots")


def test_many_sessions_few_of_which_work_can_share() -> None:
    crowd = pool(90, idle="1s")
    seen = evidence(look(crowd), look(crowd, after="10s"))
    alone = evidence(look(crowd))

    leaky = [*crowd, *leak(8, application="leaky")]
    leaking = evidence(look(leaky), look(leaky, after="10s"))

    assert "pooler" in topics(seen)
    assert "pooler" not in topics(alone)
    assert "pooler" not in topics(leaking)


@pytest.mark.parametrize(("age", "reported"), [("9m", False), ("10m", True)])
def test_old_prepared_transactions_are_reported(age: str, reported: bool) -> None:  # noqa: FBT001
    left = PreparedTransaction(gid="it's", database="shop", owner="app_web", at=ago(age), xid_age=7)

    found = findings(evidence(look([]), ground=replace(ground(), prepared=(left,))), "prepared transactions")

    assert [sql(each) for each in found] == (["ROLLBACK PREPARED 'it''s';"] if reported else [])


@pytest.mark.parametrize(
    ("retained", "xid_age", "reported"),
    [
        (1024 * MB, None, True),
        (1024 * MB - 1, None, False),
        (None, 1_000_000, True),
        (None, 999_999, False),
        (None, None, False),
    ],
)
def test_unused_replication_slots_are_reported_when_they_do_harm(
    retained: int | None,
    xid_age: int | None,
    reported: bool,  # noqa: FBT001
) -> None:
    slot = ReplicationSlot(name="old_standby", kind="physical", xid_age=xid_age, retained=retained)

    found = findings(evidence(look([]), ground=replace(ground(), idle_slots=(slot,))), "replication slot")

    assert [sql(each) for each in found] == (
        ["SELECT pg_drop_replication_slot('old_standby');"] if reported else []
    )
    assert all(each.urgency is Urgency.SOON for each in found)
