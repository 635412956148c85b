"""A pause ends after its time or when a flag is set; work that can be abandoned ends at the stop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reaper.service.pause import Flag, pause, run_unless

_FOREVER = 600.0


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        before = len(asyncio.all_tasks())
        await scene()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before  # no task is left behind

    asyncio.run(run())


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("early", [True, False], ids=["set before the pause", "set during the pause"])
def test_any_flag_ends_a_pause_and_stays_set(number: int, *, early: bool) -> None:
    async def scene() -> None:
        flags = (Flag(), Flag())
        if early:
            flags[number].set()
        else:
            asyncio.get_running_loop().call_soon(flags[number].set)
        await pause(_FOREVER, *flags)
        assert [flag.is_set() for flag in flags] == [number == 0, number == 1]

    play(scene)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
def test_a_pause_ends_after_its_time_without_a_flag(seconds: float) -> None:
    async def scene() -> None:
        flag = Flag()
        await pause(seconds, flag)
        assert not flag.is_set()
        assert not flag.pauses

    play(scene)


def test_a_cancelled_pause_leaves_nothing_behind() -> None:
    async def scene() -> None:
        flag = Flag()
        pausing = asyncio.ensure_future(pause(_FOREVER, flag))
        await asyncio.sleep(0)
        pausing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pausing
        assert not flag.pauses

    play(scene)


def test_work_that_ends_before_the_stop_returns_its_result_or_its_error() -> None:
    async def answer() -> str:
        return "done"

    async def fail() -> None:
        raise OSError

    async def scene() -> None:
        assert await run_unless(asyncio.Event(), answer()) == "done"
        with pytest.raises(OSError, match=r"^$"):
            await run_unless(asyncio.Event(), fail())

    play(scene)


def test_work_that_never_ends_is_cancelled_and_cleaned_up_at_the_stop() -> None:
    cleaned_up: list[bool] = []

    async def forever() -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    async def scene() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_soon(stop.set)
        assert await run_unless(stop, forever()) is None

    play(scene)
    assert cleaned_up == [True]
