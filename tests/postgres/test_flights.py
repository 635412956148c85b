"""Statements under way together have nothing to do with each other, and neither have the acts among them."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.match import Match
from reaper.policy.plan import Outcome, Reap, Result
from reaper.policy.session import ACTIVE
from reaper.policy.time import SECOND, Instant, Span, from_datetime
from reaper.postgres.decoding import as_flag
from reaper.postgres.encoding import instant, int4, interval
from reaper.postgres.errors import Lost
from reaper.postgres.flight import Ask, Prepared, Row
from reaper.postgres.guard import guarded

from .clients import Client
from .reaping import DAY, NOW, Reaper, now, policy
from .server import Server
from .stage import Stage
from .waiting import until

LOCK: Final = 8_150_331
# Looks at the sessions, and then waits: in one transaction with the next it would show that one the past.
LOOK_AND_WAIT: Final = Prepared.of(
    "SELECT pg_catalog.pg_advisory_lock(%(key)s::int4) FROM (SELECT pg_catalog.count(*) FROM "
    "pg_catalog.pg_stat_get_activity(NULL)) AS looked OFFSET 0"
)
ECHO: Final = Prepared.of("SELECT pg_catalog.repeat('x', %(count)s::int4), %(count)s::int4")
DIVIDE: Final = Prepared.of("SELECT 1 / %(by)s::int4")
SAME_SPAN: Final = Prepared.of(
    "SELECT %(span)s::interval = %(days)s::int4 * '1 day'::interval + %(us)s::int4 * '1 us'::interval"
)
DAY_US: Final = 86_400_000_000


@pytest.fixture(scope="module")
def asking(server: Server) -> Iterator[Reaper]:
    """A reaper whose connection many examples share."""
    with Stage(server) as stage:
        yield stage.reaper


def in_time(reap: Reap) -> Ask:
    return guarded(reap, not_after=Instant(now() + DAY))


def wait_ask() -> Ask:
    return LOOK_AND_WAIT.asked(key=int4(LOCK))


def fly_while_waiting(stage: Stage, ask: Ask, meanwhile: object) -> Sequence[object]:
    """Send a statement behind one that waits for us, and do something while it waits."""
    reaper = stage.reaper
    stage.admin.execute("SELECT pg_advisory_lock(%s)", (LOCK,))

    def then() -> None:
        until(lambda: waits(stage, reaper.link.pid))
        assert callable(meanwhile)
        meanwhile()
        stage.admin.execute("SELECT pg_advisory_unlock_all()")

    async def flown() -> Sequence[object]:
        answers, _ = await asyncio.gather(reaper.link.fly([wait_ask(), ask]), asyncio.to_thread(then))
        return answers

    return reaper.do(flown())


def waits(stage: Stage, pid: int) -> bool:
    asked = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    return stage.admin.execute(asked, (pid,)).fetchone() == (True,)


def condemned(stage: Stage, client: Client) -> Reap:
    return stage.reaper.condemn(client, policy(stage.application))


def test_an_act_that_waited_for_its_turn_sees_who_woke_up_meanwhile(stage: Stage) -> None:
    client = stage.open()

    _, answer = fly_while_waiting(stage, in_time(condemned(stage, client)), client.wake)

    assert answer == []
    assert client.alive()


def test_an_act_that_waited_for_its_turn_ends_whoever_is_still_as_it_was(stage: Stage) -> None:
    client = stage.open()

    _, answer = fly_while_waiting(stage, in_time(condemned(stage, client)), lambda: None)

    assert isinstance(answer, list)
    ((_, sent, _),) = answer
    assert as_flag(sent)
    until(client.left)


def test_an_act_whose_time_has_passed_when_its_turn_comes_is_not_done(stage: Stage) -> None:
    client = stage.open()
    late = guarded(condemned(stage, client), not_after=now())

    _, answer = fly_while_waiting(stage, late, lambda: None)

    assert isinstance(answer, list)
    ((_, sent, _),) = answer
    assert sent is None
    assert client.alive()


def test_acts_are_done_soon_after_the_server_was_heard_or_not_at_all(stage: Stage) -> None:
    clients = stage.open_many(2)
    reaps = [condemned(stage, client) for client in clients]

    late = stage.reaper.signal_all(reaps, heard_ago=Span(16 * SECOND))

    assert [outcome.result for outcome in late] == [Result.WITHDRAWN] * 2
    assert all(str(outcome.detail).startswith("the server came to it too late") for outcome in late)
    assert all(client.present() for client in clients)
    in_time = stage.reaper.signal_all(reaps, heard_ago=Span(14 * SECOND))
    assert [outcome.result for outcome in in_time] == [Result.SIGNALLED] * 2


def test_of_a_flight_each_fares_for_itself(stage: Stage) -> None:
    sleeper, superuser, woken, left, last = (
        stage.open(),
        stage.open_superuser(),
        stage.open(),
        stage.open(),
        stage.open(),
    )
    regardless = policy(stage.application, despite=["superusers"])
    clients = (sleeper, superuser, woken, left, last)
    reaps = [stage.reaper.condemn(client, regardless) for client in clients]
    woken.wake()
    left.close()
    until(left.left)

    outcomes = stage.reaper.signal_all(reaps)

    assert [outcome.result for outcome in outcomes] == [
        Result.SIGNALLED,
        Result.DENIED,
        Result.WOKE,
        Result.GONE,
        Result.SIGNALLED,
    ]
    assert superuser.alive()
    assert woken.alive()
    until(lambda: sleeper.left() and last.left())


def test_what_must_be_asked_just_before_an_act_is_asked_in_its_place_among_the_others(stage: Stage) -> None:
    idle, running, another = stage.open(), stage.open(state="active"), stage.open()
    at_work = policy(stage.application, Match(states=(ACTIVE,), running_for=NOW))
    reaps = [
        condemned(stage, idle),
        stage.reaper.condemn(running, at_work),
        condemned(stage, another),
    ]

    outcomes = stage.reaper.signal_all(reaps)

    assert [outcome.result for outcome in outcomes] == [Result.SIGNALLED] * 3
    until(lambda: all(client.left() for client in (idle, another)))
    assert running.finish() == "57P01"


def test_a_statement_that_fails_fails_alone_and_leaves_the_connection_as_it_was(stage: Stage) -> None:
    asks = [DIVIDE.asked(by=int4(divisor)) for divisor in (1, 0, -1)]

    first, failed, last = stage.reaper.do(stage.reaper.link.fly(asks))

    assert (first, last) == ([(int4(1),)], [(int4(-1),)])
    assert isinstance(failed, psycopg.errors.DivisionByZero)
    assert stage.reaper.rows("SELECT 1") == [(1,)]


def test_a_connection_that_breaks_in_flight_is_lost_for_every_answer_that_did_not_come(stage: Stage) -> None:
    reaper, client = stage.open_reaper(), stage.open()
    reap = reaper.condemn(client, policy(stage.application))
    stage.admin.execute("SELECT pg_advisory_lock(%s)", (LOCK,))

    def end_it() -> None:
        until(lambda: waits(stage, reaper.link.pid))
        stage.admin.execute("SELECT pg_terminate_backend(%s)", (reaper.link.pid,))

    async def flown() -> Sequence[Sequence[Row] | psycopg.Error | Lost]:
        asks = [DIVIDE.asked(by=int4(1)), wait_ask(), in_time(reap)]
        answers, _ = await asyncio.gather(reaper.link.fly(asks), asyncio.to_thread(end_it))
        return answers

    first, *others = reaper.do(flown())

    assert first == [(int4(1),)]
    assert [type(answer) for answer in others] == [Lost, Lost]
    assert reaper.link.lost
    assert client.alive()
    stage.admin.execute("SELECT pg_advisory_unlock_all()")


def test_acts_whose_answer_did_not_come_are_unknown_and_those_behind_are_withdrawn(stage: Stage) -> None:
    reaper = stage.open_reaper()
    clients = stage.open_many(3)
    reaps = [reaper.condemn(client, policy(stage.application)) for client in clients]
    stage.admin.execute("SELECT pg_terminate_backend(%s)", (reaper.link.pid,))

    heard = now()

    async def signalled() -> list[Outcome]:
        signal = reaper.terminator.signal
        return [*await signal(reaps[:2], heard=heard), *await signal(reaps[2:], heard=heard)]

    outcomes = reaper.do(signalled())

    assert [outcome.result for outcome in outcomes] == [Result.UNKNOWN, Result.UNKNOWN, Result.WITHDRAWN]
    assert all(client.alive() for client in clients)


def test_a_flight_larger_than_every_buffer_arrives_whole(stage: Stage) -> None:
    sizes = [200_000 + number for number in range(150)]

    answers = stage.reaper.fly(*(ECHO.asked(count=int4(size)) for size in sizes))

    assert [(len(said or b""), count) for ((said, count),) in answers] == [
        (size, int4(size)) for size in sizes
    ]


def test_a_flight_that_is_given_up_leaves_no_answers_to_the_next_statement(stage: Stage) -> None:
    reaper = stage.open_reaper()
    stage.admin.execute("SELECT pg_advisory_lock(%s)", (LOCK,))

    async def given_up() -> None:
        flight = asyncio.ensure_future(reaper.link.fly([wait_ask(), DIVIDE.asked(by=int4(1))]))
        await asyncio.to_thread(until, lambda: waits(stage, reaper.link.pid))
        flight.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flight

    reaper.do(given_up())

    assert reaper.link.lost or reaper.rows("SELECT 2") == [(2,)]
    stage.admin.execute("SELECT pg_advisory_unlock_all()")


@given(days=st.integers(0, 3_650), microseconds=st.integers(0, 2**31 - 1))
def test_a_length_of_time_is_the_same_on_the_server(asking: Reaper, days: int, microseconds: int) -> None:
    span = Span(days * DAY_US + microseconds)
    ask = SAME_SPAN.asked(span=interval(span), days=int4(days), us=int4(microseconds))

    assert asking.fly(ask) == [[(b"\x01",)]]


@given(moment=st.datetimes(timezones=st.just(UTC)))
def test_a_moment_is_the_same_on_the_server(asking: Reaper, moment: datetime) -> None:
    ((sent,),) = asking.rows("SELECT pg_catalog.timestamptz_send(%s)", (moment,))

    assert sent == instant(from_datetime(moment))
