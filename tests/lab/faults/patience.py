"""Waiting for a condition on the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

LONG: Final = 60.0
_POLL: Final = 0.01


async def until(condition: Callable[[], T], *, within: float = LONG) -> T:
    """The first true answer; a TimeoutError when there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            message = f"still {answer!r} after {within:g} s"
            raise TimeoutError(message)
        await asyncio.sleep(_POLL)
    return answer
