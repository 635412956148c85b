"""The on-demand snapshot: taken between two cycles, in the time that is left, and only on request."""

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
from reaper.service.on_demand import CurrentUsage, OnDemandSnapshot
from reaper.service.pause import Flag

from .stage import Stage
from .waiting import PATIENCE

RULES = Rules(policies=())
_ENOUGH_HITS = 8
LONG = 60.0
"""A rest longer than any test."""


class Service:
    """On-demand snapshots over the reaper's own connection."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        reaper = stage.reaper
        self.at = OpenConnection(
            connection=reaper.link, probe=reaper.probe, findings=(), observer=reaper.observer
        )
        self.on_demand = OnDemandSnapshot("orders", ClockWatch())
        self.on_demand.set_available(available=True)

    async def resting(self, *work: Coroutine[Any, Any, Any], rest: float = LONG) -> list[Any]:
        """Run `work` while the loop rests, then wake the loop."""
        enabled = Flag()
        async with asyncio.timeout(PATIENCE):
            loop = asyncio.create_task(self.on_demand.rest(self.at, RULES, rest, enabled))
            done = await asyncio.gather(*work)
            enabled.set()
            await loop
        return list(done)

    def request(self, times: int = 1) -> list[CurrentUsage]:
        """Return what this number of simultaneous requests get."""
        seen = self.stage.reaper.do(self.resting(*(self.on_demand.usage() for _ in range(times))))
        assert None not in seen
        return seen

    def last_statement(self) -> Any:  # noqa: ANN401
        """Return when the reaper's connection last changed its state."""
        question = "SELECT state_change FROM pg_stat_activity WHERE pid = %s"
        return self.stage.admin.execute(question, (self.at.connection.pid,)).fetchone()


@pytest.fixture
def service(stage: Stage) -> Service:
    return Service(stage)


def applications(current: CurrentUsage) -> dict[str | None, int]:
    return {group.name: group.count for group in current.usage.census.applications.groups}


def test_a_request_gets_all_sessions_of_this_moment(service: Service) -> None:
    service.stage.open_many(3)

    (current,) = service.request()

    assert applications(current)[service.stage.application] == 3
    assert current.usage.used[-1] == current.usage.census.openings.used
    assert current.usage.trends["applications"][0][-1] is not None


def test_simultaneous_requests_share_one_snapshot(service: Service) -> None:
    usages = service.request(times=50)

    assert len({id(usage) for usage in usages}) == 1
    at = service.last_statement()
    service.request(times=50)
    assert service.last_statement() == at


def test_without_a_request_no_statement_is_sent(service: Service) -> None:
    before = service.last_statement()

    service.stage.reaper.do(service.resting(rest=0.2))

    assert service.last_statement() == before


def test_continuous_requests_do_not_delay_a_cycle_that_is_due(service: Service) -> None:
    async def scene() -> None:
        rest = asyncio.create_task(service.on_demand.rest(service.at, RULES, 0.3, Flag()))
        async with asyncio.timeout(PATIENCE):
            while not rest.done():
                service.on_demand.requested.set()
                await asyncio.sleep(0)
        await rest

    service.stage.reaper.do(scene())


def test_a_snapshot_that_hangs_is_cancelled_in_time_and_the_connection_is_unchanged(service: Service) -> None:
    (first,) = service.request()
    service.on_demand._tried = 0.0
    with service.stage.admin.transaction():
        service.stage.admin.execute("LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")

        async def scene() -> CurrentUsage | None:
            current, _ = await asyncio.gather(
                service.on_demand.usage(), service.on_demand.rest(service.at, RULES, 0.4, Flag())
            )
            return current

        assert service.stage.reaper.do(scene()) is first

    assert service.stage.reaper.rows("SHOW statement_timeout") == [("5s",)]


def test_a_hurry_holds_within_its_block_only(service: Service) -> None:
    link = service.at.connection

    async def scene() -> tuple[object, object]:
        async with link.hurrying(0.25):
            within = await link.rows("SHOW statement_timeout")
        return within, await link.rows("SHOW statement_timeout")

    assert service.stage.reaper.do(scene()) == ([("250ms",)], [("5s",)])


def test_no_cancelled_statement_of_a_hurry_costs_the_connection(service: Service) -> None:
    link = service.at.connection
    ended = threading.Event()

    def cancel() -> None:
        while not ended.is_set():
            service.stage.admin.execute("SELECT pg_cancel_backend(%s)", (link.pid,))

    async def scene() -> None:
        hits = 0
        async with asyncio.timeout(PATIENCE):
            while hits < _ENOUGH_HITS:
                async with link.hurrying(1):
                    try:
                        await link.rows("SELECT pg_sleep(60)")  # always cancelled
                    except errors.QueryCanceled:
                        hits += 1

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        service.stage.reaper.do(scene())
    finally:
        ended.set()
        canceller.join()

    assert not link.lost


def test_a_connection_that_is_lost_in_a_hurry_is_lost_and_nothing_else(service: Service) -> None:
    link = service.at.connection

    async def scene() -> None:
        async with link.hurrying(1):
            service.stage.admin.execute("SELECT pg_terminate_backend(%s)", (link.pid,))
            await link.rows("SELECT 1")

    with pytest.raises(Lost):
        service.stage.reaper.do(scene())
    assert link.lost


def test_without_a_loop_requests_get_the_last_snapshot_of_a_cycle(service: Service) -> None:
    service.stage.open_many(2)
    service.on_demand.set_available(available=False)
    assert service.stage.reaper.do(service.on_demand.usage()) is None
    service.on_demand.cycled(service.stage.reaper.look(), RULES)

    current = service.stage.reaper.do(service.on_demand.usage())

    assert current
    assert applications(current)[service.stage.application] == 2


def test_the_snapshot_has_each_session_and_no_query(service: Service) -> None:
    client = service.stage.open()
    client.run("SELECT 'a literal'")
    everything = service.stage.open_reaper(query_text=QueryText.FULL)
    cycles = everything.look()
    assert any("a literal" in (session.query or "") for session in cycles.sessions)
    service.on_demand.set_available(available=False)
    service.on_demand.cycled(cycles, RULES)

    shown = service.stage.reaper.do(service.on_demand.snapshot())

    assert shown is not None
    assert {session.id for session in shown.sessions} == {session.id for session in cycles.sessions}
    assert {session.query for session in shown.sessions} == {None}


def test_a_snapshot_on_demand_has_each_session_too(service: Service) -> None:
    service.stage.open_many(2)

    (seen,) = service.stage.reaper.do(service.resting(service.on_demand.snapshot()))

    assert sum(each.identity.application == service.stage.application for each in seen.sessions) == 2
    assert seen.facts.waiters is not None


def test_a_request_that_waits_when_the_loop_ends_gets_the_last_snapshot_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    (last,) = service.request()
    monkeypatch.setattr("reaper.service.on_demand._WAIT_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr("reaper.service.on_demand._FRESH_SECONDS", 0.0)

    async def scene() -> CurrentUsage | None:
        async with asyncio.timeout(PATIENCE):
            waiting = asyncio.create_task(service.on_demand.usage())
            await service.on_demand.requested.wait()
            service.on_demand.set_available(available=False)
            return await waiting

    assert service.stage.reaper.do(scene()) is last
