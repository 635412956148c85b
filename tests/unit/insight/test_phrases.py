"""What a census says in words."""

from typing import Final

import pytest

from reaper.insight.usage.census import Transaction, Waiter, openings
from reaper.insight.usage.texts import ago, horizon, openings_words, pooler_words, waiting_words
from reaper.policy.poolers import Pooler
from reaper.policy.session import Identity, Slots

REFUSED: Final = "Ordinary roles are refused. A superuser still gets in:"


def transaction(*waiters: str, waiting: int | None = None, xid_age: int | None = None) -> Transaction:
    who = Identity("shop", "app", "web", None)
    return Transaction(
        pid=1,
        session=who,
        state="idle in transaction",
        open_s=1.0,
        state_s=1.0,
        waiting=waiting,
        waiters=tuple(Waiter(pid=n, session=who._replace(application=a)) for n, a in enumerate(waiters, 10)),
        xid_age=xid_age,
    )


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        (
            Slots(total=100, reserved=3, used=40, superuser_reserved=3),
            "Everybody gets in, unless a limit of their own role or database is reached.",
        ),
        (
            Slots(total=100, reserved=3, used=97, superuser_reserved=3),
            f"{REFUSED} 3 slots left.",
        ),
        (
            Slots(total=100, reserved=5, used=96, superuser_reserved=3),
            f"{REFUSED} 4 slots left, and a role with pg_use_reserved_connections: 1 left.",
        ),
        (
            Slots(total=100, reserved=3, used=99),
            f"{REFUSED} 1 slot left.",
        ),
        (
            Slots(total=100, reserved=3, used=100, superuser_reserved=3),
            "Not even a superuser gets in now: end a session from the server's host.",
        ),
    ],
)
def test_it_says_whether_an_admin_gets_in(slots: Slots, said: str) -> None:
    *_, last = openings_words(openings(slots, []))

    assert last == said


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (transaction(), ""),
        (transaction(waiting=0), ""),
        (transaction(waiting=2), "2 wait for it"),
        (transaction("web", waiting=1), "1 waits for it: web (pid 10)"),
        (transaction("web", "", waiting=5), "5 wait for it: web (pid 10), (unnamed) (pid 11) and 3 more"),
    ],
)
def test_it_says_who_waits(told: Transaction, said: str) -> None:
    assert waiting_words(told) == said


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (None, ""),
        (1, ""),
        (2, "holds vacuum back by 2 transactions"),
        (1_234_567, "holds vacuum back by 1,234,567 transactions"),
    ],
)
def test_it_says_how_far_vacuum_is_held_back(age: int | None, said: str) -> None:
    assert horizon(transaction(xid_age=age)) == said


@pytest.mark.parametrize(
    ("pooler", "said"),
    [
        (
            Pooler(kind="PgBouncer", client=None, count=1, applications=1),
            "Probably PgBouncer: 1 session from local, by the name they give.",
        ),
        (
            Pooler(kind=None, client="10.2.0.7", count=60, applications=3),
            "Probably a pooler, or one large pool: 60 sessions from 10.2.0.7, under 3 names.",
        ),
        (
            Pooler(kind=None, client="10.2.0.7", count=60, applications=1),
            "Probably a pooler, or one large pool: 60 sessions from 10.2.0.7, under one name.",
        ),
    ],
)
def test_a_pooler_is_never_more_than_probable(pooler: Pooler, said: str) -> None:
    assert pooler_words(pooler) == said


def test_an_age_is_said_as_people_say_it() -> None:
    assert [ago(None), ago(0.4), ago(751), ago(2 * 86_400 + 3 * 3_600)] == ["", "400ms", "12m31s", "2d3h"]
