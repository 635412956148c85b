"""Signals set flags and do nothing else; what they ask for happens between acts."""

import asyncio
import signal
from dataclasses import dataclass, field

from reaper.telemetry import events
from reaper.telemetry.log import Log


@dataclass(frozen=True, slots=True)
class Flags:
    """What a signal has asked for."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)


def heed_signals(log: Log) -> Flags:
    """SIGTERM and Ctrl-C ask to stop; SIGHUP to read the policy file and reopen the record."""
    flags = Flags()
    loop = asyncio.get_running_loop()

    def asked_to_stop(name: str) -> None:
        flags.stop.set()
        log.info(events.STOPPING, signal=name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, flags.reload.set)
    return flags
