"""Servers come and go; those that stay are left alone, but for being woken."""

import asyncio
from dataclasses import replace

from reaper.config import Server
from tests.unit.telemetry.test_metrics import numbers

from .build import BILLING, ORDERS, Ears, Mustered, fleet, settings

_MOVED = replace(ORDERS, dsn="host=db-9")


class Gathered:
    """A fleet of loops that do not run."""

    def __init__(self) -> None:
        self.ears = Ears()
        self.fleet = fleet(self.ears, settings())
        self.begun = Mustered()

    def update_servers(self, *servers: Server) -> None:
        self.fleet.update_servers(servers, self.begun.append)

    @property
    def shown(self) -> set[str]:
        """The servers that the metrics show."""
        return {
            value for _, labels in numbers(self.ears.metrics) for name, value in labels if name == "server"
        }


def test_every_new_server_is_begun_at_once_and_only_once() -> None:
    gathered = Gathered()
    gathered.update_servers(ORDERS)
    gathered.update_servers(ORDERS, BILLING)
    gathered.update_servers(ORDERS, BILLING)
    assert gathered.begun.names == ["orders", "billing"]
    assert list(gathered.fleet.statuses) == ["orders", "billing"]
    assert gathered.shown == {"orders", "billing"}


def test_a_server_that_is_given_twice_is_begun_once() -> None:
    gathered = Gathered()
    gathered.update_servers(ORDERS, ORDERS)
    assert gathered.begun.names == ["orders"]


def test_a_server_that_is_gone_is_ended_and_its_metrics_are_forgotten() -> None:
    gathered = Gathered()
    gathered.update_servers(ORDERS, BILLING)
    gathered.update_servers(BILLING)
    orders, billing = gathered.begun
    assert (orders.stop.is_set(), billing.stop.is_set()) == (True, False)
    assert gathered.shown == set(gathered.fleet.statuses) == {"billing"}
    assert set(gathered.fleet.totals) == {"orders", "billing"}


def test_a_server_whose_connection_string_has_changed_is_ended_and_begun_and_goes_on_counting() -> None:
    gathered = Gathered()
    gathered.update_servers(ORDERS)
    gathered.fleet.totals["orders"].cycles = 7
    gathered.update_servers(_MOVED)
    old, new = gathered.begun
    assert (old.stop.is_set(), new.stop.is_set()) == (True, False)
    assert new.server == _MOVED
    assert gathered.shown == {"orders"}
    assert gathered.fleet.totals["orders"].cycles == 7


def test_a_loop_that_takes_the_place_of_another_watches_for_itself_and_knows_what_refills() -> None:
    gathered = Gathered()
    gathered.update_servers(ORDERS)
    old = gathered.fleet.follow_ups["orders"]
    gathered.update_servers(_MOVED)
    new = gathered.fleet.follow_ups["orders"]
    assert new.watch is not old.watch
    assert new.refills == old.refills


def test_those_that_stay_are_woken_and_those_that_are_new_need_not_be() -> None:
    gathered = Gathered()
    gathered.update_servers(ORDERS)
    assert not gathered.begun[0].wake.is_set()
    gathered.update_servers(ORDERS, BILLING)
    assert [loop.wake.is_set() for loop in gathered.begun] == [True, False]


def test_many_are_begun_one_after_the_other() -> None:
    gathered = Gathered()
    gathered.update_servers(*(replace(ORDERS, name=f"shop-{number}") for number in range(100)))
    after = [loop._delay for loop in gathered.begun]
    assert after[0] == 0
    assert after == sorted(set(after))
    assert after[-1] < 1


def test_the_end_waits_for_every_loop_also_for_those_that_were_dismissed() -> None:
    gathered = Gathered()

    async def scene() -> None:
        gathered.update_servers(ORDERS, BILLING)
        gathered.update_servers(BILLING)
        gathered.fleet.stop()
        assert all(loop.stop.is_set() for loop in gathered.begun)
        end = asyncio.ensure_future(gathered.fleet.ended())
        for loop in gathered.begun:
            assert not await is_over(end)
            loop.ended.set()
        assert await is_over(end)

    asyncio.run(scene())


async def is_over(end: asyncio.Future[None]) -> bool:
    """Whether it has ended, after everything that can happen now has happened."""
    for _ in range(5):
        await asyncio.sleep(0)
    return end.done()


def test_a_loop_that_is_stopped_before_it_begins_ends() -> None:
    gathered = Gathered()

    async def scene() -> None:
        gathered.update_servers(ORDERS)
        (loop,) = gathered.begun
        loop.stop.set()
        await loop.run()
        assert loop.ended.is_set()

    asyncio.run(scene())
