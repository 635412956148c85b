"""Who holds the slots, counted from one look."""

import json
from dataclasses import replace
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.usage.census import CROWD, Census, Ranking, census, shortened
from reaper.policy.session import (
    ABORTED,
    ACTIVE,
    CLIENT_BACKEND,
    IN_TRANSACTION,
    WALSENDER,
    Facts,
    Slots,
    Snapshot,
)
from reaper.policy.text import as_document
from tests.unit.policy.build import NO_FACTS, session, sessions, snapshot
from tests.unit.policy.hostile import PROPERTY, snapshots

TOPS: Final = st.integers(min_value=0, max_value=4)
HOLDING: Final = Facts(
    advisory_lock_holders=frozenset(),
    waiters={100: 4},
    blockers={pid: frozenset({100}) for pid in (104, 103, 102, 101)},
)


def rankings(counted: Census) -> list[Ranking]:
    return [counted.applications, counted.roles, counted.databases, counted.clients]


def slots(*, used: int, reserved: int = 3, superuser_reserved: int | None = 3) -> Snapshot:
    held = Slots(total=100, reserved=reserved, used=used, superuser_reserved=superuser_reserved)
    return replace(snapshot(), slots=held)


@given(snapshots, TOPS)
@PROPERTY
def test_every_session_stands_once_in_each_ranking_or_in_its_rest(seen: Snapshot, top: int) -> None:
    counted = census(seen, top=top)

    assert counted.sessions == sum(one.kind == CLIENT_BACKEND for one in seen.sessions)
    assert counted.sessions + counted.walsenders == len(seen.sessions)
    assert sum(counted.states.values()) == counted.sessions
    for ranking in rankings(counted):
        assert sum(group.count for group in ranking.groups) + ranking.more_sessions == counted.sessions
        assert all(sum(group.states.values()) == group.count for group in ranking.groups)


@given(snapshots, TOPS)
@PROPERTY
def test_every_list_is_as_short_as_it_was_asked_to_be_and_the_largest_come_first(
    seen: Snapshot, top: int
) -> None:
    counted = census(seen, top=top)

    assert all(len(each) <= top for each in (counted.transactions, counted.poolers))
    for ranking in rankings(counted):
        counts = [group.count for group in ranking.groups]
        assert len(counts) <= top
        assert counts == sorted(counts, reverse=True)


@given(snapshots, TOPS, TOPS)
@PROPERTY
def test_a_census_that_is_shortened_is_the_one_that_was_asked_to_be_short(
    seen: Snapshot, top: int, more: int
) -> None:
    assert shortened(census(seen, top=top + more), top=top) == census(seen, top=top)


@given(snapshots, st.randoms(use_true_random=False))
@PROPERTY
def test_the_order_of_sessions_does_not_matter(seen: Snapshot, random: Random) -> None:
    told = tuple({one.id.pid: one for one in seen.sessions}.values())  # a pid is of one session at a time
    shuffled = tuple(random.sample(told, len(told)))

    assert census(replace(seen, sessions=shuffled), top=3) == census(replace(seen, sessions=told), top=3)


@given(snapshots)
@PROPERTY
def test_a_census_with_any_names_is_json(seen: Snapshot) -> None:
    document = as_document(census(seen, top=5))

    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))


def test_a_group_has_its_states_and_its_oldest_idle_time() -> None:
    seen = snapshot(
        session(1, idle="5m"),
        session(2, idle="2h"),
        session(3, state=ACTIVE, idle="3d"),
        session(4, state=IN_TRANSACTION, idle="1m"),
        session(5, application="cron", state=ACTIVE, idle="1s"),
    )

    web, cron = census(seen, top=5).applications.groups

    assert (web.name, web.count, web.oldest_idle_s, web.idling) == ("web-1", 4, 7_200.0, 3)
    assert list(web.states.items()) == [("active", 1), ("idle", 2), ("idle in transaction", 1)]
    assert (cron.name, cron.count, cron.oldest_idle_s, cron.idling) == ("cron", 1, None, 0)


def test_sessions_without_a_name_are_a_group_that_has_none() -> None:
    counted = census(snapshot(session(1, application=""), session(2, application=None)), top=5)

    assert [(group.name, group.count) for group in counted.applications.groups] == [(None, 2)]


def test_walsenders_are_counted_separately() -> None:
    counted = census(snapshot(session(1), session(2, kind=WALSENDER, application="standby")), top=5)

    assert (counted.sessions, counted.walsenders) == (1, 1)
    assert [group.name for group in counted.applications.groups] == ["web-1"]


def test_a_hidden_state_counts_as_unknown() -> None:
    counted = census(snapshot(session(1, state=None)), top=5)

    assert counted.states == {"unknown": 1}
    assert counted.applications.groups[0].oldest_idle_s is None


def test_sessions_that_were_only_counted_stand_in_no_group() -> None:
    counted = census(replace(snapshot(session(1)), left_out=299), top=5)

    assert (counted.sessions, counted.uncounted) == (1, 299)


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        (slots(used=40), (57, 57, 60)),
        (slots(used=97), (0, 0, 3)),
        (slots(used=95, reserved=5), (0, 2, 5)),
        (slots(used=100, reserved=5), (0, 0, 0)),
        (slots(used=102), (0, 0, 0)),
        (slots(used=90, superuser_reserved=None), (7, None, 10)),
    ],
)
def test_the_free_slots_are_counted_for_each_kind_of_role(
    seen: Snapshot, left: tuple[int, int | None, int]
) -> None:
    openings = census(seen, top=5).openings

    assert (openings.for_anybody, openings.for_reserved, openings.for_superusers) == left
    assert openings.full == (left[0] == 0)


def test_open_transactions_have_their_waiters_and_their_delay_of_vacuum() -> None:
    waiting = [session(pid, application=f"w{pid}", state=ACTIVE) for pid in (101, 102, 103, 104)]
    holder = session(100, state=IN_TRANSACTION, idle="2m", in_transaction="5m", xid_age=7)
    older = session(50, state=ABORTED, idle="1h", in_transaction="1h")

    first, second = census(snapshot(*waiting, older, holder, facts=HOLDING), top=5).transactions

    assert (first.pid, first.open_s, first.state_s, first.waiting, first.xid_age) == (100, 300.0, 120.0, 4, 7)
    assert [(waiter.pid, waiter.session.application) for waiter in first.waiters] == [
        (101, "w101"),
        (102, "w102"),
        (103, "w103"),
    ]
    assert (second.pid, second.state, second.waiting, second.waiters) == (50, ABORTED, 0, ())


def test_waiters_that_were_not_read_are_unknown() -> None:
    (found,) = census(snapshot(session(1, state=IN_TRANSACTION), facts=NO_FACTS), top=5).transactions

    assert found.waiting is None


def test_an_active_session_is_listed_only_if_it_blocks_or_delays_vacuum() -> None:
    seen = snapshot(
        session(1, state=ACTIVE, xid_age=900, in_transaction="2m"),
        session(2, state=ACTIVE, xid_age=900, in_transaction="1m"),
        session(3, state=ACTIVE, xid_age=2, in_transaction="3m"),
        session(100, state=ACTIVE),
        facts=HOLDING,
    )

    assert [each.pid for each in census(seen, top=5).transactions] == [100, 1]


def test_a_new_transaction_delays_nothing() -> None:
    assert census(snapshot(session(1, state=ACTIVE, xid_age=1)), top=5).transactions == ()


def test_transactions_above_the_limit_are_counted() -> None:
    counted = census(snapshot(*sessions(5, state=IN_TRANSACTION, in_transaction="1h")), top=2)

    assert (len(counted.transactions), counted.more_transactions) == (2, 3)


@pytest.mark.parametrize(
    ("application", "kind"),
    [
        ("pgbouncer", "PgBouncer"),
        ("PgBouncer (db)", "PgBouncer"),
        ("odyssey", "Odyssey"),
        ("pgcat", "PgCat"),
        ("pgpool", "Pgpool-II"),
        ("Supavisor", "Supavisor"),
        ("pgagroal", "pgagroal"),
        ("pgdog", "PgDog"),
    ],
)
def test_a_pooler_is_recognised_by_its_name(application: str, kind: str) -> None:
    seen = snapshot(session(1, application=application), session(2, application=application), session(3))

    (found,) = census(seen, top=5).poolers

    assert (found.kind, found.client, found.count) == (kind, "10.2.0.7", 2)


@pytest.mark.parametrize(
    ("count", "client", "others", "recognised"),
    [
        (CROWD, "10.9.9.9", 0, 1),
        (CROWD - 1, "10.9.9.9", 0, 0),
        (CROWD, None, 0, 0),
        (CROWD, "10.9.9.9", 2 * CROWD + 1, 0),
    ],
    ids=["a crowd", "not quite a crowd", "through the server's own socket", "a small share of all"],
)
def test_a_crowd_from_one_address_may_be_a_pooler(
    count: int, client: str | None, others: int, recognised: int
) -> None:
    beside = [session(5_000 + number, client=f"10.3.0.{number}") for number in range(others)]

    found = census(snapshot(*sessions(count, client=client), *beside), top=5).poolers

    assert [(each.kind, each.client, each.count) for each in found] == [(None, client, count)] * recognised
