"""Waiting for a condition instead of for a while."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 90.0
"""Of which only a test that fails needs much, or a machine that many share."""
_POLL: Final = 0.002


def until(condition: Callable[[], T], *, within: float = PATIENCE, every: float = _POLL) -> T:
    """The first true answer of the condition; a TimeoutError when there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            message = f"still {answer!r} after {within:g} s"
            raise TimeoutError(message)
        time.sleep(every)
    return answer
