"""What a census says in words."""

from typing import Final

import pytest

from reaper.insight.usage.census import ProbablePooler, Transaction, Waiter, openings
from reaper.insight.usage.texts import ago, horizon, openings_words, pooler_words, waiting_words
from reaper.policy.session import Identity, Slots

REFUSED: Final = "Ordinary roles are refused. Superusers can use"


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
            "New connections are accepted (role and database limits may still apply).",
        ),
        (
            Slots(total=100, reserved=3, used=97, superuser_reserved=3),
            f"{REFUSED} 3 more slots.",
        ),
        (
            Slots(total=100, reserved=5, used=96, superuser_reserved=3),
            f"{REFUSED} 4 more slots, 1 of them for pg_use_reserved_connections.",
        ),
        (
            Slots(total=100, reserved=3, used=99),
            f"{REFUSED} 1 more slot.",
        ),
        (
            Slots(total=100, reserved=3, used=100, superuser_reserved=3),
            "All roles are refused, also superusers: terminate a session from the server's host.",
        ),
    ],
)
def test_it_says_which_roles_can_still_connect(slots: Slots, said: str) -> None:
    *_, last = openings_words(openings(slots, []))

    assert last == said


@pytest.mark.parametrize(
    ("transaction", "said"),
    [
        (transaction(), ""),
        (transaction(waiting=0), ""),
        (transaction(waiting=2), "2 sessions wait for it"),
        (transaction("web", waiting=1), "1 session waits for it: web (pid 10)"),
        (
            transaction("x", "", waiting=5),
            "5 sessions wait for it: x (pid 10), (unnamed) (pid 11) and 3 more",
        ),
    ],
)
def test_waiting_sessions_are_named(transaction: Transaction, said: str) -> None:
    assert waiting_words(transaction) == said


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (None, ""),
        (1, ""),
        (2, "delays vacuum by 2 transactions"),
        (1_234_567, "delays vacuum by 1,234,567 transactions"),
    ],
)
def test_the_delay_of_vacuum_is_shown_in_transactions(age: int | None, said: str) -> None:
    assert horizon(transaction(xid_age=age)) == said


@pytest.mark.parametrize(
    ("pooler", "said"),
    [
        (
            ProbablePooler(kind="PgBouncer", client=None, count=1, applications=1),
            "Probably PgBouncer, by its application name: 1 session from local.",
        ),
        (
            ProbablePooler(kind=None, client="10.2.0.7", count=60, applications=3),
            "Probably a pooler or a large pool: 60 sessions from 10.2.0.7, with 3 names.",
        ),
        (
            ProbablePooler(kind=None, client="10.2.0.7", count=60, applications=1),
            "Probably a pooler or a large pool: 60 sessions from 10.2.0.7, with 1 name.",
        ),
    ],
)
def test_a_pooler_is_never_more_than_probable(pooler: ProbablePooler, said: str) -> None:
    assert pooler_words(pooler) == said


def test_an_age_has_at_most_two_units() -> None:
    assert [ago(None), ago(0.4), ago(751), ago(2 * 86_400 + 3 * 3_600)] == ["", "400ms", "12m31s", "2d3h"]
