"""The servers of a service: which ones it watches, and their loops across reloads."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.config import Server
from reaper.service.fleet import Shard, choose_servers, from_dsn
from tests.unit.telemetry.test_metrics import numbers

from .build import BILLING, ORDERS, Reports, StartedLoops, fleet, settings

_MOVED = replace(ORDERS, dsn="host=db-9")
_NAMES = st.text(max_size=20)


class FleetUnderTest:
    """A fleet of loops that do not run."""

    def __init__(self) -> None:
        self.reports = Reports()
        self.fleet = fleet(self.reports, settings())
        self.loops = StartedLoops()

    def update_servers(self, *servers: Server) -> None:
        self.fleet.update_servers(servers, self.loops.append)

    @property
    def in_metrics(self) -> set[str]:
        """The servers that the metrics show."""
        labels = [pair for _, labels in numbers(self.reports.metrics) for pair in labels]
        return {value for name, value in labels if name == "server"}

    @property
    def stopped(self) -> list[bool]:
        return [loop.stop.is_set() for loop in self.loops]


def test_each_new_server_gets_one_loop_and_loops_that_stay_are_woken() -> None:
    under = FleetUnderTest()
    under.update_servers(ORDERS, ORDERS)
    assert under.loops.names == ["orders"]
    assert not under.loops[0].wake.is_set()
    for _ in range(2):
        under.update_servers(ORDERS, BILLING)
    assert under.loops.names == list(under.fleet.statuses) == ["orders", "billing"]
    assert under.in_metrics == {"orders", "billing"}
    assert under.loops[0].wake.is_set()


def test_the_loop_of_a_removed_server_is_stopped_and_its_metrics_are_forgotten() -> None:
    under = FleetUnderTest()
    under.update_servers(ORDERS, BILLING)
    under.update_servers(BILLING)
    assert under.stopped == [True, False]
    assert under.in_metrics == set(under.fleet.statuses) == {"billing"}
    assert set(under.fleet.totals) == {"orders", "billing"}


def test_a_new_connection_string_means_a_new_loop_that_keeps_the_totals_and_the_refill_guard() -> None:
    under = FleetUnderTest()
    under.update_servers(ORDERS)
    under.fleet.totals["orders"].cycles = 7
    before = under.fleet.follow_ups["orders"]
    under.update_servers(_MOVED)
    after = under.fleet.follow_ups["orders"]
    assert under.stopped == [True, False]
    assert under.loops[1].server == _MOVED
    assert under.in_metrics == {"orders"}
    assert under.fleet.totals["orders"].cycles == 7
    assert after.refills is before.refills
    assert after.watch is not before.watch


def test_the_first_connections_to_many_servers_are_spread_over_less_than_a_second() -> None:
    under = FleetUnderTest()
    under.update_servers(*(replace(ORDERS, name=f"shop-{number}") for number in range(100)))
    delays = [loop._delay for loop in under.loops]
    assert delays[0] == 0
    assert delays == sorted(set(delays))
    assert delays[-1] < 1


def test_the_end_waits_for_every_loop_also_of_removed_servers() -> None:
    under = FleetUnderTest()

    async def scene() -> None:
        under.update_servers(ORDERS, BILLING)
        under.update_servers(BILLING)
        under.fleet.stop()
        assert all(under.stopped)
        end = asyncio.ensure_future(under.fleet.ended())
        for loop in under.loops:
            assert not await is_over(end)
            loop.ended.set()
        assert await is_over(end)

    asyncio.run(scene())


async def is_over(end: asyncio.Future[None]) -> bool:
    """Return True if it has ended, after everything that can happen now has happened."""
    for _ in range(5):
        await asyncio.sleep(0)
    return end.done()


def test_a_loop_that_is_stopped_before_it_starts_ends() -> None:
    under = FleetUnderTest()

    async def scene() -> None:
        under.update_servers(ORDERS)
        (loop,) = under.loops
        loop.stop.set()
        await loop.run()
        assert loop.ended.is_set()

    asyncio.run(scene())


def test_all_servers_of_the_file_are_chosen_unless_one_is_named() -> None:
    both = settings(servers=(ORDERS, BILLING))
    assert choose_servers(both, dsn=None, name=None) == [ORDERS, BILLING]
    assert choose_servers(both, dsn=None, name="billing") == [BILLING]
    assert choose_servers(both, dsn=None, name="payroll") == []


def test_a_server_that_the_file_does_not_name_is_named_by_its_dsn_or_by_libpqs_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "db-2")
    monkeypatch.setenv("PGPORT", "5434")
    named = choose_servers(settings(), dsn="host=db-1 port=5433", name=None)
    assert named == [Server(name="db-1:5433", dsn="host=db-1 port=5433")]
    assert choose_servers(settings(), dsn=None, name=None) == [Server(name="db-2:5434", dsn="")]


def test_a_connection_string_that_cannot_be_read_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="neither") as refused:
        from_dsn("postgresql://reaper:s3cret@[::1/db")
    assert "s3cret" not in str(refused.value)


def owners(name: str, count: int) -> list[int]:
    return [index for index in range(count) if Shard(index, count).owns(name)]


@given(_NAMES, st.integers(1, 40))
def test_each_server_has_one_owner_and_one_more_shard_moves_only_the_servers_that_it_gets(
    name: str, count: int
) -> None:
    before, after = owners(name, count), owners(name, count + 1)
    assert len(before) == 1
    assert after in (before, [count])


def test_the_shards_share_the_servers_about_equally() -> None:
    servers = tuple(Server(name=f"shop-{number}", dsn="") for number in range(4_000))
    all_of_them = settings(servers=servers)
    shares = [choose_servers(all_of_them, dsn=None, name=None, shard=Shard(index, 8)) for index in range(8)]
    assert sorted(server.name for share in shares for server in share) == sorted(s.name for s in servers)
    assert all(400 < len(share) < 600 for share in shares)


def test_the_owner_of_a_name_is_the_same_in_every_process_and_release() -> None:
    assert [owners(name, 8) for name in ("orders", "billing", "")] == [[2], [3], [4]]


@pytest.mark.parametrize(
    ("text", "shard"),
    [
        ("0/1", Shard(0, 1)),
        ("2/8", Shard(2, 8)),
        ("reaper-12/16", Shard(12, 16)),
        ("2024-reaper.blue-3/8", Shard(3, 8)),
        ("007/8", Shard(7, 8)),
    ],
)
def test_a_shard_is_an_index_or_the_name_of_a_pod_with_its_ordinal(text: str, shard: Shard) -> None:
    assert Shard.parse(text) == Shard.parse(str(shard)) == shard


# fmt: off
_NO_SHARDS = [
    "", "2", "/8", "2/", "2/8/", "2/3/8", "-1/8", "1.5/8", "1e0/8", "reaper/8", "reaper-/8", "reaper2/8",
    "Reaper-2/8", " 2/8", "2/8 ", "2/8\n", "2 / 8", "٢/٨", "10000/20000", "10000000003/8",
]
# fmt: on


@pytest.mark.parametrize("text", _NO_SHARDS)
def test_other_text_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard: write INDEX/COUNT"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8/8", "indexes run from 0 to 7"),
        ("9/8", "indexes run from 0 to 7"),
        ("reaper-1/1", "indexes run from 0 to 0"),
        ("0/0", "shard 0 of 0 does not exist"),
    ],
)
def test_an_index_beyond_the_last_is_refused_with_the_range(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shard.parse(text)
