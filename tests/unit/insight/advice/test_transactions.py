"""Transactions that are idle for long, block other sessions or delay vacuum."""

from dataclasses import replace
from typing import Unpack

import pytest

from reaper.insight.advice.finding import Confidence, Finding, Urgency
from reaper.insight.advice.server_facts import RoleSetting
from reaper.policy.session import ABORTED, IN_TRANSACTION, Facts, Session
from tests.unit.policy.build import Told, session

from .scenes import evidence, findings, ground, look, role, sql, topics, used

_TIMEOUT = "idle_in_transaction_session_timeout"
_BLOCKING = Facts(advisory_lock_holders=frozenset(), waiters={100: 3})


def transaction(since: str = "2h", *, pid: int = 100, **fields: Unpack[Told]) -> Session:
    """A session that has been idle in a transaction for this time."""
    row: Told = {"state": IN_TRANSACTION, "in_transaction": since, "idle": since}
    row.update(fields)
    return session(pid, **row)


def forgotten(*seen: Session) -> Finding:
    """The finding about these sessions."""
    (found,) = findings(evidence(look(seen), ground=ground(role())), "idle in transaction")
    return found


@pytest.mark.parametrize(
    ("idle", "urgency"), [("59s", None), ("1m", Urgency.WORTH), ("9m", Urgency.WORTH), ("10m", Urgency.SOON)]
)
def test_a_transaction_that_is_idle_for_long_seems_forgotten(idle: str, urgency: Urgency | None) -> None:
    found = findings(evidence(look([transaction(idle)]), ground=ground(role())), "idle in transaction")

    assert [each.urgency for each in found] == ([urgency] if urgency else [])


def test_the_timeout_is_well_above_the_idle_periods_that_ended() -> None:
    usual = [transaction("20s", pid=200 + n) for n in range(30)]
    later = look([transaction(), *used(usual, after="1s")], after="1s")

    (found,) = findings(
        evidence(look([transaction(), *usual]), later, ground=ground(role())), "idle in transaction"
    )

    # Three times 21 seconds is more than a minute.
    assert sql(found) == "ALTER ROLE \"app_web\" SET idle_in_transaction_session_timeout = '2min';"
    assert found.confidence is Confidence.LIKELY
    assert "30 in-transaction idle periods ended in this time" in found.evidence[-1]


def test_without_ended_periods_the_timeout_is_longer_and_called_a_guess() -> None:
    found = forgotten(transaction())

    assert "'5min'" in sql(found)
    assert found.confidence is Confidence.POSSIBLE
    assert found.evidence[-1] == "no in-transaction idle period ended in this time: any limit is a guess"


def test_a_timeout_that_would_end_none_of_them_is_not_proposed() -> None:
    assert sql(forgotten(transaction("3m"))) == ""


@pytest.mark.parametrize(
    ("for_role", "database", "value"),
    [
        ("app_web", None, "1min"),
        (None, "shop", "5 min"),
        ("app_web", "shop", "60000"),
        (None, None, "1min"),
        ("app_web", "shop", "soon"),
    ],
)
def test_no_timeout_is_proposed_where_one_is_set_or_unreadable(
    for_role: str | None, database: str | None, value: str
) -> None:
    given = RoleSetting(role=for_role, database=database, name=_TIMEOUT, value=value)
    seen = evidence(look([transaction()]), ground=replace(ground(role()), given=(given,)))

    (found,) = findings(seen, "idle in transaction")

    assert sql(found) == ""


def test_a_role_that_makes_backups_gets_no_such_timeout() -> None:
    found = forgotten(transaction(), transaction(pid=7, application="pg_dump"))

    assert sql(found) == ""
    assert found.title.startswith("a transaction of role 'app_web'")
    assert any("a separate role for backups" in fix.action for fix in found.fixes)


@pytest.mark.parametrize(
    ("state", "xid_age", "holds"),
    [
        (IN_TRANSACTION, 900, "until it ends it holds its slot and its locks, and delays vacuum"),
        (IN_TRANSACTION, None, "until it ends it holds its slot and its locks"),
        (ABORTED, None, "it has failed: it holds no locks, but its slot until the client ends it"),
    ],
)
def test_what_a_forgotten_transaction_holds_is_reported(state: str, xid_age: int | None, holds: str) -> None:
    assert holds in forgotten(transaction(state=state, xid_age=xid_age)).evidence


@pytest.mark.parametrize("state", [IN_TRANSACTION, ABORTED])
def test_an_idle_transaction_that_blocks_others_is_urgent(state: str) -> None:
    (found,) = findings(evidence(look([transaction("1m", state=state)], facts=_BLOCKING)), "blocking")

    assert found.urgency is Urgency.NOW
    assert found.title == "3 sessions wait for pid 100, which is idle in a transaction"
    assert sql(found) == (
        "SELECT pg_terminate_backend(100) FROM pg_stat_activity WHERE pid = 100 "  # noqa: S608 (what is shown)
        f"AND backend_start = '2025-06-18T10:00:00.000000Z' AND state = '{state}';"
    )


@pytest.mark.parametrize(("state", "idle"), [("active", "1h"), (IN_TRANSACTION, "59s"), ("idle", "1h")])
def test_an_active_session_or_one_that_has_just_become_idle_is_not_reported(state: str, idle: str) -> None:
    assert findings(evidence(look([transaction(idle, state=state)], facts=_BLOCKING)), "blocking") == []


@pytest.mark.parametrize(("xid_age", "reported"), [(999_999, False), (1_000_000, True), (None, False)])
def test_a_session_that_delays_vacuum_far_is_reported(xid_age: int | None, reported: bool) -> None:  # noqa: FBT001
    assert ("vacuum" in topics(evidence(look([transaction("30s", xid_age=xid_age)])))) is reported


def test_a_session_that_blocks_others_and_vacuum_is_reported_once() -> None:
    seen = evidence(look([transaction("5m", xid_age=2_000_000)], facts=_BLOCKING))

    assert "vacuum" not in topics(seen)
    assert findings(seen, "blocking")[0].evidence[-1] == "it also delays vacuum by 2,000,000 transactions"


def test_no_statement_is_proposed_that_would_terminate_a_backup() -> None:
    dump = transaction("5h", application="pg_dump", xid_age=2_000_000)

    (found,) = findings(evidence(look([dump])), "vacuum")

    assert (sql(found), found.urgency) == ("", Urgency.WORTH)


@pytest.mark.parametrize(
    ("major", "state", "idle", "open_for", "reported"),
    [
        (17, "active", "5s", "1h", 1),
        (17, IN_TRANSACTION, "5s", "1h", 1),
        (17, "active", "5s", "59m", 0),
        (17, IN_TRANSACTION, "2m", "1h", 0),
        (16, "active", "5s", "1h", 0),
    ],
)
def test_long_transactions_in_use_may_get_a_timeout_where_the_server_has_it(
    major: int, state: str, idle: str, open_for: str, reported: int
) -> None:
    one = transaction(idle, state=state, in_transaction=open_for)

    found = findings(evidence(look([one]), ground=ground(role(), major=major)), "long transaction")

    statement = "ALTER ROLE \"app_web\" SET transaction_timeout = '4h';"
    assert [sql(each) for each in found] == [statement] * reported
