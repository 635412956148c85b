"""Waiting that ends early when something is asked of the reaper."""

import asyncio


async def pause(seconds: float, *wakers: asyncio.Event) -> None:
    """Wait for so long, or until one of these is set."""
    if any(waker.is_set() for waker in wakers):
        return
    waits = [asyncio.ensure_future(waker.wait()) for waker in wakers]
    try:
        await asyncio.wait(waits, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
