"""Whoever asks is shown everybody, between two cycles and in the time that is left; else nobody is asked."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from psycopg import errors

from reaper.policy.rules import Rules
from reaper.postgres.errors import Lost
from reaper.postgres.query_text import QueryText
from reaper.service.clock import ClockWatch
from reaper.service.connection import OpenConnection
from reaper.service.on_demand import Lookout, Reading
from reaper.service.pause import Flag

from .stage import Stage
from .waiting import PATIENCE

RULES = Rules(policies=())
_ENOUGH_HITS = 8
LONG = 60.0
"""A rest that no test waits for."""


class Post:
    """A lookout on the reaper's own connection."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        reaper = stage.reaper
        self.at = OpenConnection(link=reaper.link, probe=reaper.probe, findings=(), observer=reaper.observer)
        self.lookout = Lookout("orders", ClockWatch())
        self.lookout.attend(attended=True)

    async def resting(self, *work: Coroutine[Any, Any, Any], rest: float = LONG) -> list[Any]:
        """Do this while the loop rests, and then wake the loop."""
        awake = Flag()
        async with asyncio.timeout(PATIENCE):
            loop = asyncio.create_task(self.lookout.rest(self.at, RULES, rest, awake))
            done = await asyncio.gather(*work)
            awake.set()
            await loop
        return list(done)

    def ask(self, times: int = 1) -> list[Reading]:
        """What so many are shown who come at once."""
        seen = self.stage.reaper.do(self.resting(*(self.lookout.reading() for _ in range(times))))
        assert None not in seen
        return seen

    def last_statement(self) -> Any:  # noqa: ANN401
        """When the reaper's connection last did something, by the server."""
        question = "SELECT state_change FROM pg_stat_activity WHERE pid = %s"
        return self.stage.admin.execute(question, (self.at.link.pid,)).fetchone()


@pytest.fixture
def post(stage: Stage) -> Post:
    return Post(stage)


def applications(reading: Reading) -> dict[str | None, int]:
    return {group.name: group.count for group in reading.usage.census.applications.groups}


def test_whoever_asks_sees_everybody_who_is_there_now(post: Post) -> None:
    post.stage.open_many(3)

    (reading,) = post.ask()

    assert applications(reading)[post.stage.application] == 3
    assert reading.usage.used[-1] == reading.usage.census.openings.used
    assert reading.usage.trends["applications"][0][-1] is not None


def test_many_who_ask_at_once_share_one_look(post: Post) -> None:
    readings = post.ask(times=50)

    assert len({id(reading) for reading in readings}) == 1
    at = post.last_statement()
    post.ask(times=50)
    assert post.last_statement() == at


def test_when_nobody_asks_the_server_is_not_asked_either(post: Post) -> None:
    before = post.last_statement()

    post.stage.reaper.do(post.resting(rest=0.2))

    assert post.last_statement() == before


def test_a_cycle_that_is_due_is_not_kept_waiting_by_those_who_go_on_asking(post: Post) -> None:
    async def scene() -> None:
        rest = asyncio.create_task(post.lookout.rest(post.at, RULES, 0.3, Flag()))
        async with asyncio.timeout(PATIENCE):
            while not rest.done():
                post.lookout.asked.set()
                await asyncio.sleep(0)
        await rest

    post.stage.reaper.do(scene())


def test_a_look_that_hangs_is_given_up_in_time_and_the_connection_is_as_it_was(post: Post) -> None:
    (first,) = post.ask()
    post.lookout._tried = 0.0
    with post.stage.admin.transaction():
        post.stage.admin.execute("LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")

        async def scene() -> Reading | None:
            reading, _ = await asyncio.gather(
                post.lookout.reading(), post.lookout.rest(post.at, RULES, 0.4, Flag())
            )
            return reading

        assert post.stage.reaper.do(scene()) is first

    assert post.stage.reaper.rows("SHOW statement_timeout") == [("5s",)]


def test_a_hurry_holds_within_its_block_only(post: Post) -> None:
    link = post.at.link

    async def scene() -> tuple[object, object]:
        async with link.hurrying(0.25):
            within = await link.rows("SHOW statement_timeout")
        return within, await link.rows("SHOW statement_timeout")

    assert post.stage.reaper.do(scene()) == ([("250ms",)], [("5s",)])


def test_no_cancelled_statement_of_a_hurry_costs_the_connection(post: Post) -> None:
    link = post.at.link
    ended = threading.Event()

    def cancel() -> None:
        while not ended.is_set():
            post.stage.admin.execute("SELECT pg_cancel_backend(%s)", (link.pid,))

    async def scene() -> None:
        hits = 0
        async with asyncio.timeout(PATIENCE):
            while hits < _ENOUGH_HITS:
                async with link.hurrying(1):
                    try:
                        await link.rows("SELECT 1")
                    except errors.QueryCanceled:
                        hits += 1

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        post.stage.reaper.do(scene())
    finally:
        ended.set()
        canceller.join()

    assert not link.lost


def test_a_connection_that_is_lost_in_a_hurry_is_lost_and_nothing_else(post: Post) -> None:
    link = post.at.link

    async def scene() -> None:
        async with link.hurrying(1):
            post.stage.admin.execute("SELECT pg_terminate_backend(%s)", (link.pid,))
            await link.rows("SELECT 1")

    with pytest.raises(Lost):
        post.stage.reaper.do(scene())
    assert link.lost


def test_where_no_loop_looks_the_last_look_of_a_cycle_is_shown(post: Post) -> None:
    post.stage.open_many(2)
    post.lookout.attend(attended=False)
    assert post.stage.reaper.do(post.lookout.reading()) is None
    post.lookout.cycled(post.stage.reaper.look(), RULES)

    reading = post.stage.reaper.do(post.lookout.reading())

    assert reading
    assert applications(reading)[post.stage.application] == 2


def test_each_session_is_shown_and_never_a_query(post: Post) -> None:
    client = post.stage.open()
    client.run("SELECT 'a literal'")
    everything = post.stage.open_reaper(query_text=QueryText.FULL)
    cycles = everything.look()
    assert any("a literal" in (session.query or "") for session in cycles.sessions)
    post.lookout.attend(attended=False)
    post.lookout.cycled(cycles, RULES)

    shown = post.stage.reaper.do(post.lookout.snapshot())

    assert shown is not None
    assert {session.id for session in shown.sessions} == {session.id for session in cycles.sessions}
    assert {session.query for session in shown.sessions} == {None}


def test_a_look_for_a_visitor_is_shown_session_by_session_too(post: Post) -> None:
    post.stage.open_many(2)

    (seen,) = post.stage.reaper.do(post.resting(post.lookout.snapshot()))

    assert sum(each.identity.application == post.stage.application for each in seen.sessions) == 2
    assert seen.facts.waiters is not None


def test_who_waits_when_the_loop_leaves_is_shown_the_last_look_at_once(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    (last,) = post.ask()
    monkeypatch.setattr("reaper.service.on_demand._PATIENCE", 10 * PATIENCE)
    monkeypatch.setattr("reaper.service.on_demand._FRESH_SECONDS", 0.0)

    async def scene() -> Reading | None:
        async with asyncio.timeout(PATIENCE):
            waiting = asyncio.create_task(post.lookout.reading())
            await post.lookout.asked.wait()
            post.lookout.attend(attended=False)
            return await waiting

    assert post.stage.reaper.do(scene()) is last
