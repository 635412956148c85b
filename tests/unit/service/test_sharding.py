"""Rendezvous hashing: every server has one owner, and few change it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.service.fleet import Shard

_NAMES = st.text(max_size=20)


def owners(name: str, count: int) -> list[int]:
    return [index for index in range(count) if Shard(index, count).owns(name)]


@given(_NAMES, st.integers(1, 40))
def test_every_server_has_exactly_one_owner(name: str, count: int) -> None:
    assert len(owners(name, count)) == 1


@given(_NAMES, st.integers(1, 40))
def test_one_shard_more_moves_only_the_servers_that_it_gets(name: str, count: int) -> None:
    before, after = owners(name, count), owners(name, count + 1)
    assert after in (before, [count])


def test_the_shares_are_about_equal() -> None:
    shares = [sum(Shard(index, 8).owns(f"shop-{number}") for number in range(4_000)) for index in range(8)]
    assert sum(shares) == 4_000
    assert all(400 < share < 600 for share in shares)


def test_the_owner_of_a_name_is_the_same_in_every_process_and_release() -> None:
    assert [owners(name, 8) for name in ("orders", "billing", "")] == [[2], [3], [4]]


@pytest.mark.parametrize(
    ("text", "shard"),
    [
        ("0/1", Shard(0, 1)),
        ("2/8", Shard(2, 8)),
        ("reaper-2/8", Shard(2, 8)),
        ("reaper-12/16", Shard(12, 16)),
        ("pg-reaper-fleet-0/2", Shard(0, 2)),
        ("2024-reaper.blue-3/8", Shard(3, 8)),
        ("007/8", Shard(7, 8)),
    ],
)
def test_a_shard_is_an_index_or_the_name_of_a_pod_with_its_ordinal(text: str, shard: Shard) -> None:
    assert Shard.parse(text) == shard


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "/8",
        "2/",
        "2/8/",
        "2/3/8",
        "-1/8",
        "1.5/8",
        "1e0/8",
        "reaper/8",
        "reaper-/8",
        "reaper2/8",
        "Reaper-2/8",
        " 2/8",
        "2/8 ",
        "2/8\n",
        "2 / 8",
        "٢/٨",
        "10000/20000",
        "10000000003/8",
    ],
)
def test_nonsense_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard: write INDEX/COUNT"):
        Shard.parse(text)


@pytest.mark.parametrize(("text", "last"), [("8/8", "7"), ("9/8", "7"), ("reaper-1/1", "0")])
def test_an_index_beyond_the_last_is_refused_with_the_range(text: str, last: str) -> None:
    with pytest.raises(ValueError, match=f"does not exist: indexes run from 0 to {last}"):
        Shard.parse(text)


def test_a_count_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="shard 0 of 0 does not exist"):
        Shard.parse("0/0")


@given(st.integers(1, 9_999).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count))))
def test_what_is_shown_is_read_back(numbers: tuple[int, int]) -> None:
    shard = Shard(*numbers)
    assert Shard.parse(str(shard)) == shard
