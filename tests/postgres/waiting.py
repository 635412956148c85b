"""Waiting for a condition instead of a fixed time."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 90.0
"""Only a failing test or a busy machine needs much of it."""
_POLL: Final = 0.002


def until(condition: Callable[[], T], *, within: float = PATIENCE, every: float = _POLL) -> T:
    """Return the first true result of the condition; raise TimeoutError if there is none in time."""
    deadline = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > deadline:
            message = f"still {result!r} after {within:g} s"
            raise TimeoutError(message)
        time.sleep(every)
    return result
