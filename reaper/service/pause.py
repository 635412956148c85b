"""Waiting that ends early when something is asked of the reaper."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Flag(asyncio.Event):
    """Whether something was asked; it ends the rests that it is given to."""

    def __init__(self) -> None:
        super().__init__()
        self.rests = set[asyncio.Future[None]]()

    def set(self) -> None:
        """It was asked."""
        super().set()
        for rest in self.rests:
            _end(rest)


async def pause(seconds: float, *flags: Flag) -> None:
    """Wait for so long, or until one of these is set."""
    if any(flag.is_set() for flag in flags):
        return
    loop = asyncio.get_running_loop()
    # Not a task for each flag: whoever rests most of the time would work most at that.
    rest: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(max(seconds, 0), _end, rest)
    for flag in flags:
        flag.rests.add(rest)
    try:
        await rest
    finally:
        timer.cancel()
        for flag in flags:
            flag.rests.discard(rest)


def _end(rest: "asyncio.Future[None]") -> None:
    if not rest.done():
        rest.set_result(None)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do it, or leave it when the stop comes first: for what has no consequences before it is done."""
    doing = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        stopped.cancel()
        if doing.cancel():
            await asyncio.wait((doing,))
