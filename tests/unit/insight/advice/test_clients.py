"""Clients that disappeared, monitoring tools, superusers, sessions without a name; what has no session."""

from dataclasses import replace
from typing import Final

import pytest

from reaper.insight.advice.finding import Urgency
from reaper.insight.advice.server_facts import PreparedTransaction, ReplicationSlot
from tests.unit.policy.build import ago, session

from .scenes import busy, evidence, findings, ground, look, pool, role, sql, topics

MB: Final = 1024 * 1024


@pytest.mark.parametrize(
    ("keepalive", "sessions", "client", "reported"),
    [
        ("7200", 3, "10.2.0.7", 1),
        ("7200", 2, "10.2.0.7", 0),
        ("7200", 3, "127.0.0.1", 0),
        ("7200", 3, None, 0),
        ("1799", 3, "10.2.0.7", 0),
        ("", 3, "10.2.0.7", 0),
    ],
)
def test_late_keepalives_are_reported_if_remote_clients_are_silent(
    keepalive: str, sessions: int, client: str | None, reported: int
) -> None:
    facts = ground(role(), tcp_keepalives_idle=keepalive)

    found = findings(evidence(look(pool(sessions, client=client)), ground=facts), "dead clients")

    title = "a client whose machine disappeared keeps its slot for 2h11m"
    assert [each.title for each in found] == [title] * reported
    assert all(sql(each).endswith("SELECT pg_reload_conf();") for each in found)


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
    facts = ground(role(), major=major, client_connection_check_interval=check)

    assert bool(findings(evidence(look([one]), ground=facts), "dead clients")) is reported


@pytest.mark.parametrize(("sessions", "statements"), [(5, []), (6, ['ALTER ROLE "m" CONNECTION LIMIT 5;'])])
def test_monitoring_needs_few_sessions(sessions: int, statements: list[str]) -> None:
    tools = busy(sessions, application="postgres_exporter", role="m")

    found = findings(evidence(look(tools), ground=ground(role("m"))), "monitoring")

    assert [sql(each) for each in found] == statements


def test_monitoring_may_have_one_session_for_each_database() -> None:
    tools = [session(n, application="Datadog Agent", database=f"db{n}", idle="1s") for n in range(2, 22)]

    assert "monitoring" not in topics(evidence(look(tools)))


def test_a_role_that_an_application_shares_gets_no_limit_because_of_a_tool() -> None:
    (found,) = findings(evidence(look([*busy(9, application="grafana"), session(7)])), "monitoring")

    assert sql(found) == ""


@pytest.mark.parametrize(("nameless", "named", "reported"), [(4, 0, 0), (5, 0, 1), (5, 20, 1), (5, 21, 0)])
def test_a_share_of_unnamed_sessions_is_reported(nameless: int, named: int, reported: int) -> None:
    every = [*busy(nameless, application=""), *busy(named, first=5_000)]

    found = findings(evidence(look(every), ground=ground(role())), "names")

    statement = "ALTER ROLE \"app_web\" SET application_name = 'app_web';"
    assert [sql(each) for each in found] == [statement] * reported


def test_the_name_of_a_driver_is_no_application_name() -> None:
    (found,) = findings(evidence(look(busy(9, application="PostgreSQL JDBC Driver"))), "names")

    assert "with the name of their driver: 'PostgreSQL JDBC Driver'" in found.evidence


@pytest.mark.parametrize(
    ("count", "application", "reported"),
    [(3, "web-1", {"superusers"}), (2, "web-1", set()), (3, "psql", set())],
)
def test_applications_that_are_superusers_are_reported(
    count: int, application: str, reported: set[str]
) -> None:
    sessions = busy(count, role="postgres", superuser=True, application=application)

    assert topics(evidence(look(sessions))) == reported


@pytest.mark.parametrize(("age", "statements"), [("9m", []), ("10m", ["ROLLBACK PREPARED 'it''s';"])])
def test_old_prepared_transactions_are_reported(age: str, statements: list[str]) -> None:
    left = PreparedTransaction(gid="it's", database="shop", owner="app_web", at=ago(age), xid_age=7)

    found = findings(evidence(look([]), ground=replace(ground(), prepared=(left,))), "prepared transactions")

    assert [sql(each) for each in found] == statements


@pytest.mark.parametrize(
    ("retained", "xid_age", "reported"),
    [
        (1024 * MB, None, 1),
        (1024 * MB - 1, None, 0),
        (None, 1_000_000, 1),
        (None, 999_999, 0),
        (None, None, 0),
    ],
)
def test_unused_replication_slots_are_reported_when_they_do_harm(
    retained: int | None, xid_age: int | None, reported: int
) -> None:
    slot = ReplicationSlot(name="old_standby", kind="physical", xid_age=xid_age, retained=retained)

    found = findings(evidence(look([]), ground=replace(ground(), idle_slots=(slot,))), "replication slot")

    drop = ("SELECT pg_drop_replication_slot('old_standby');", Urgency.SOON)
    assert [(sql(each), each.urgency) for each in found] == [drop] * reported
