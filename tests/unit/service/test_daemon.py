"""The end of any part that should never end is the end of all, with a reason."""

import asyncio

import pytest

from reaper.service.daemon import PartEnded, _run_forever


async def nothing() -> None:
    pass


async def breaks() -> None:
    raise ZeroDivisionError


def test_a_part_that_ends_by_itself_is_broken_and_named() -> None:
    with pytest.raises(PartEnded, match="server orders has ended by itself"):
        asyncio.run(_run_forever("server orders", nothing(), asyncio.Event()))


def test_a_part_that_ends_because_it_was_asked_to_is_not() -> None:
    async def scene() -> None:
        stop = asyncio.Event()
        stop.set()
        await _run_forever("http", nothing(), stop)

    asyncio.run(scene())


def test_a_part_that_fails_keeps_its_own_reason() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_run_forever("http", breaks(), asyncio.Event()))
