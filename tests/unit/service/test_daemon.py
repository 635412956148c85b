"""If a part of the service that should never end has ended, the service ends with the reason."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from reaper.service.daemon import PartEnded, _run_forever


async def ends() -> None:
    pass


async def fails() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [(ends, PartEnded, "server orders has ended by itself"), (fails, ZeroDivisionError, "^$")],
)
def test_a_part_that_ends_by_itself_is_named_and_a_failure_keeps_its_own_reason(
    work: Callable[[], Coroutine[Any, Any, None]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asyncio.run(_run_forever("server orders", work(), asyncio.Event()))


def test_a_part_may_end_after_the_stop() -> None:
    async def scene() -> None:
        stop = asyncio.Event()
        stop.set()
        await _run_forever("http", ends(), stop)

    asyncio.run(scene())
