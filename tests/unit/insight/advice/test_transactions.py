"""Transactions that wait: forgotten, in the way, or in vacuum's."""

from dataclasses import replace

import pytest

from reaper.insight.advice.finding import Confidence, Urgency
from reaper.insight.advice.server_facts import RoleSetting
from reaper.policy.session import ABORTED, IN_TRANSACTION, Facts
from tests.unit.policy.build import session

from .scenes import evidence, findings, ground, look, pool, role, sql, topics, used

_TIMEOUT = "idle_in_transaction_session_timeout"
_WAITED_FOR = Facts(advisory_lock_holders=frozenset(), waiters={100: 3})


@pytest.mark.parametrize(
    ("idle", "urgency"), [("59s", None), ("1m", Urgency.WORTH), ("9m", Urgency.WORTH), ("10m", Urgency.SOON)]
)
def test_a_transaction_that_waits_for_long_seems_forgotten(idle: str, urgency: Urgency | None) -> None:
    one = session(state=IN_TRANSACTION, idle=idle, in_transaction="1h")

    found = findings(evidence(look([one]), ground=ground(role())), "idle in transaction")

    assert [each.urgency for each in found] == ([urgency] if urgency else [])


def test_the_timeout_lies_well_above_the_waits_that_ended() -> None:
    forgotten = session(state=IN_TRANSACTION, idle="2h", in_transaction="2h")
    usual = [session(200 + n, state=IN_TRANSACTION, idle="20s", in_transaction="20s") for n in range(30)]
    seen = evidence(
        look([forgotten, *usual]),
        look([forgotten, *used(usual, after="1s")], after="1s"),
        ground=ground(role()),
    )

    (found,) = findings(seen, "idle in transaction")

    # Three times 21 seconds is more than a minute.
    assert sql(found) == "ALTER ROLE \"app_web\" SET idle_in_transaction_session_timeout = '2min';"
    assert found.confidence is Confidence.LIKELY
    assert "30 in-transaction idle periods ended in this time" in found.evidence[-1]


def test_too_little_evidence_is_named_and_the_timeout_is_longer() -> None:
    one = session(state=IN_TRANSACTION, idle="2h", in_transaction="2h")

    (found,) = findings(evidence(look([one]), ground=ground(role())), "idle in transaction")

    assert "'5min'" in sql(found)
    assert found.confidence is Confidence.POSSIBLE
    assert found.evidence[-1] == "no in-transaction idle period ended in this time: any limit is a guess"


def test_a_timeout_that_would_end_none_of_them_is_not_proposed() -> None:
    one = session(state=IN_TRANSACTION, idle="3m", in_transaction="3m")

    (found,) = findings(evidence(look([one]), ground=ground(role())), "idle in transaction")

    assert sql(found) == ""


@pytest.mark.parametrize(
    "given",
    [
        RoleSetting(role="app_web", database=None, name=_TIMEOUT, value="1min"),
        RoleSetting(role=None, database="shop", name=_TIMEOUT, value="1min"),
        RoleSetting(role="app_web", database="shop", name=_TIMEOUT, value="60000"),
        RoleSetting(role=None, database=None, name=_TIMEOUT, value="1min"),
        RoleSetting(role="app_web", database="shop", name=_TIMEOUT, value="soon"),
    ],
)
def test_it_is_not_proposed_where_there_is_one_or_it_is_unknown(given: RoleSetting) -> None:
    one = session(state=IN_TRANSACTION, idle="2h", in_transaction="2h")
    seen = evidence(look([one]), ground=replace(ground(role()), given=(given,)))

    (found,) = findings(seen, "idle in transaction")

    assert sql(found) == ""


def test_a_role_that_makes_backups_gets_no_such_timeout() -> None:
    one = session(state=IN_TRANSACTION, idle="2h", in_transaction="2h")
    dump = session(7, application="pg_dump", state=IN_TRANSACTION, idle="2h", in_transaction="2h")

    (found,) = findings(evidence(look([one, dump]), ground=ground(role())), "idle in transaction")

    assert sql(found) == ""
    assert found.title.startswith("a transaction of role 'app_web'")
    assert any("a separate role for backups" in fix.action for fix in found.fixes)


@pytest.mark.parametrize("state", ["idle in transaction", "idle in transaction (aborted)"])
def test_an_idle_transaction_that_blocks_others_is_urgent(state: str) -> None:
    one = session(state=state, idle="1m", in_transaction="1h")

    (found,) = findings(evidence(look([one], facts=_WAITED_FOR)), "blocking")

    assert found.urgency is Urgency.NOW
    assert found.title == "3 sessions wait for pid 100, which is idle in a transaction"
    assert sql(found) == (
        "SELECT pg_terminate_backend(100) FROM pg_stat_activity WHERE pid = 100 "  # noqa: S608 (what is shown)
        f"AND backend_start = '2025-06-18T10:00:00.000000Z' AND state = '{state}';"
    )


@pytest.mark.parametrize(
    ("state", "idle"), [("active", "1h"), ("idle in transaction", "59s"), ("idle", "1h")]
)
def test_an_active_session_or_one_that_has_just_become_idle_is_not_reported(state: str, idle: str) -> None:
    one = session(state=state, idle=idle, in_transaction="1h")

    assert findings(evidence(look([one], facts=_WAITED_FOR)), "blocking") == []


@pytest.mark.parametrize(("xid_age", "reported"), [(999_999, False), (1_000_000, True), (None, False)])
def test_a_session_that_delays_vacuum_far_is_reported(xid_age: int | None, reported: bool) -> None:  # noqa: FBT001
    one = session(state=IN_TRANSACTION, idle="30s", in_transaction="30s", xid_age=xid_age)

    assert ("vacuum" in topics(evidence(look([one])))) is reported


def test_a_session_that_blocks_others_and_vacuum_is_reported_once() -> None:
    one = session(state=IN_TRANSACTION, idle="5m", in_transaction="5m", xid_age=2_000_000)

    seen = evidence(look([one], facts=_WAITED_FOR))

    assert "vacuum" not in topics(seen)
    assert findings(seen, "blocking")[0].evidence[-1] == "it also delays vacuum by 2,000,000 transactions"


def test_a_backup_is_never_to_be_ended() -> None:
    dump = session(
        application="pg_dump", state=IN_TRANSACTION, idle="5h", in_transaction="5h", xid_age=2_000_000
    )

    (found,) = findings(evidence(look([dump])), "vacuum")

    assert sql(found) == ""
    assert found.urgency is Urgency.WORTH


@pytest.mark.parametrize(
    ("major", "state", "idle", "open_for", "reported"),
    [
        (17, "active", "5s", "1h", True),
        (17, "idle in transaction", "5s", "1h", True),
        (17, "active", "5s", "59m", False),
        (17, "idle in transaction", "2m", "1h", False),
        (16, "active", "5s", "1h", False),
    ],
)
def test_transactions_at_work_for_long_may_get_a_timeout_where_there_is_one(
    major: int,
    state: str,
    idle: str,
    open_for: str,
    reported: bool,  # noqa: FBT001
) -> None:
    one = session(state=state, idle=idle, in_transaction=open_for)

    found = findings(evidence(look([one]), ground=ground(role(), major=major)), "long transaction")

    assert [sql(each) for each in found] == (
        ["ALTER ROLE \"app_web\" SET transaction_timeout = '4h';"] if reported else []
    )


def test_a_healthy_pool_has_no_transactions_to_speak_of() -> None:
    assert topics(evidence(look(pool(3, idle="1s")), ground=ground(role()))) == set()


@pytest.mark.parametrize(
    ("state", "xid_age", "keeps"),
    [
        (IN_TRANSACTION, 900, "until it ends it holds its slot and its locks, and delays vacuum"),
        (IN_TRANSACTION, None, "until it ends it holds its slot and its locks"),
        (
            ABORTED,
            None,
            "the transaction has failed: it holds no locks, but its slot until the client ends it",
        ),
    ],
)
def test_what_such_a_transaction_holds_is_reported(state: str, xid_age: int | None, keeps: str) -> None:
    one = session(state=state, idle="2h", in_transaction="2h", xid_age=xid_age)

    (found,) = findings(evidence(look([one])), "idle in transaction")

    assert keeps in found.evidence
