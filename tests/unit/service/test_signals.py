"""Signals that arrive before there is an event loop are not lost."""

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
    """Restore the handlers of the test run."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_event_loop_sets_its_flag_as_soon_as_there_is_one(number: signal.Signals) -> None:
    signal_handlers = SignalHandlers()
    os.kill(os.getpid(), number)

    async def attached() -> tuple[bool, bool]:
        flags = signal_handlers.attach(make_log(LogFormat.JSON, LogLevel.INFO, to=io.StringIO()))
        await asyncio.sleep(0)
        return flags.stop.is_set(), flags.reload.is_set()

    assert asyncio.run(attached()) == (number != signal.SIGHUP, number == signal.SIGHUP)
