"""Signals set flags and do nothing else; what they ask for happens between acts."""

import asyncio
import signal
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from reaper.telemetry import events
from reaper.telemetry.log import Log

_TO_STOP: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Flags:
    """What a signal has asked for."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)


class Early:
    """What signals ask for when no loop heeds them yet, from now on; the loop does it first of all.

    Left to themselves they would end the process with their number, a SIGHUP too.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.reload = False
        for number in _TO_STOP:
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGHUP, self._asked_to_reload)

    def _asked_to_stop(self, number: int, _: FrameType | None) -> None:
        self.stop = signal.Signals(number)

    def _asked_to_reload(self, *_: object) -> None:
        self.reload = True


def heed_signals(log: Log, early: Early | None = None) -> Flags:
    """SIGTERM and Ctrl-C ask to stop; SIGHUP to read the policy file and reopen the record."""
    flags = Flags()
    loop = asyncio.get_running_loop()

    def asked_to_stop(name: str) -> None:
        flags.stop.set()
        log.info(events.STOPPING, signal=name)

    for number in _TO_STOP:
        loop.add_signal_handler(number, asked_to_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, flags.reload.set)
    if early and early.stop:
        asked_to_stop(early.stop.name)
    if early and early.reload:
        flags.reload.set()
    return flags


def heed_no_more() -> None:
    """At the end: whoever asks again is not to change how it ends."""
    for number in (*_TO_STOP, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
