"""Waiting on the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

LONG: Final = 60.0
_POLL: Final = 0.01


async def wait_until(condition: Callable[[], T], *, within: float = LONG) -> T:
    """The first true answer of a condition; a TimeoutError if there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            message = f"still {answer!r} after {within:g} s"
            raise TimeoutError(message)
        await asyncio.sleep(_POLL)
    return answer


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run this beside the block, and cancel it at the end; fail if it has ended by itself."""
    task = asyncio.create_task(work)
    try:
        yield task
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
