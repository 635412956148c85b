"""A rest ends when it is over, or as soon as something is asked."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reaper.service.pause import Flag, pause

_FOREVER = 600.0


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        before = len(asyncio.all_tasks())
        await scene()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before  # nobody is left waiting

    asyncio.run(run())


def test_what_was_asked_before_it_began_lets_it_not_begin() -> None:
    async def scene() -> None:
        asked, other = Flag(), Flag()
        asked.set()
        await pause(_FOREVER, other, asked)

    play(scene)


@pytest.mark.parametrize("number", [0, 1])
def test_any_of_what_is_asked_ends_it_and_stays_asked(number: int) -> None:
    async def scene() -> None:
        wakers = (Flag(), Flag())
        asyncio.get_running_loop().call_soon(wakers[number].set)
        await pause(_FOREVER, *wakers)
        assert [waker.is_set() for waker in wakers] == [number == 0, number == 1]

    play(scene)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
def test_a_rest_that_is_over_ends_with_nothing_asked(seconds: float) -> None:
    async def scene() -> None:
        asked = Flag()
        await pause(seconds, asked)
        assert not asked.is_set()

    play(scene)


def test_a_rest_that_is_cancelled_leaves_nobody_waiting() -> None:
    async def scene() -> None:
        resting = asyncio.ensure_future(pause(_FOREVER, Flag()))
        await asyncio.sleep(0)
        resting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resting

    play(scene)
