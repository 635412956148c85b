"""Waiting that ends early when a flag is set."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Flag(asyncio.Event):
    """An event that also ends the pauses that wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = set[asyncio.Future[None]]()

    def set(self) -> None:
        """Set the flag and end every pause that waits for it."""
        super().set()
        for waiting in self.pauses:
            _end(waiting)


async def pause(seconds: float, *flags: Flag) -> None:
    """Wait for `seconds`, or until one of the flags is set."""
    if any(flag.is_set() for flag in flags):
        return
    loop = asyncio.get_running_loop()
    # One future instead of a task for each flag: with many servers, pausing would be most of the work.
    waiting: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(max(seconds, 0), _end, waiting)
    for flag in flags:
        flag.pauses.add(waiting)
    try:
        await waiting
    finally:
        timer.cancel()
        for flag in flags:
            flag.pauses.discard(waiting)


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


async def run_unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work`, or cancel it and return None if `stop` comes first. Only for work that can be abandoned."""
    running = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else None
    finally:
        stopped.cancel()
        # Awaited, so that an open connection is closed before the caller goes on.
        if running.cancel():
            await asyncio.wait((running,))
