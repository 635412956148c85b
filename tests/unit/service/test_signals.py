"""Signals that come before a loop obeys them are not forgotten."""

import asyncio
import io
import os
import signal
from collections.abc import Iterator

import pytest

from reaper.service.signals import SignalHandlers
from reaper.telemetry.log import LogFormat, LogLevel, make_log


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of the test run are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_was_asked_for_before_is_done_as_soon_as_there_is_a_loop(number: signal.Signals) -> None:
    signal_handlers = SignalHandlers()
    os.kill(os.getpid(), number)

    async def begun() -> tuple[bool, bool]:
        flags = signal_handlers.attach(make_log(LogFormat.JSON, LogLevel.INFO, to=io.StringIO()))
        await asyncio.sleep(0)
        return flags.stop.is_set(), flags.reload.is_set()

    assert asyncio.run(begun()) == (number != signal.SIGHUP, number == signal.SIGHUP)
