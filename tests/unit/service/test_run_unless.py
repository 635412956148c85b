"""What has no consequences yet is left when the stop comes first."""

import asyncio

import pytest

from reaper.service.pause import run_unless


async def answered(answer: str) -> str:
    return answer


def test_what_is_done_before_the_stop_has_its_answer() -> None:
    async def play() -> str | None:
        return await run_unless(asyncio.Event(), answered("done"))

    assert asyncio.run(play()) == "done"


def test_what_would_never_end_is_left_and_cleaned_up_after_at_the_stop() -> None:
    left: list[str] = []

    async def forever() -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            left.append("cleaned up")

    async def play() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_soon(stop.set)
        assert await run_unless(stop, forever()) is None

    asyncio.run(play())
    assert left == ["cleaned up"]


def test_what_fails_fails_as_it_would_without_a_stop() -> None:
    async def broken() -> None:
        raise OSError

    async def play() -> None:
        await run_unless(asyncio.Event(), broken())

    with pytest.raises(OSError, match=r"^$"):
        asyncio.run(play())
