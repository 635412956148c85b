"""Signals set flags and do nothing else; what they ask for happens between acts."""

import asyncio
import signal
from dataclasses import dataclass, field
from types import FrameType

from reaper.service.pause import Flag
from reaper.telemetry import events
from reaper.telemetry.log import Log


@dataclass(frozen=True, slots=True)
class Flags:
    """What a signal has asked for."""

    stop: Flag = field(default_factory=Flag)
    reload: Flag = field(default_factory=Flag)


class SignalHandlers:
    """Heeds signals from now on to the end of the process, whether or not a loop is there to obey them.

    Left to themselves they would end it with their number, a SIGHUP too; and the handlers of a loop are gone
    with it, while the last words are still being said.
    """

    def __init__(self) -> None:
        self._stop: signal.Signals | None = None
        self._reload = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flags: Flags | None = None
        self._log: Log | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked)

    def obeyed(self, log: Log) -> Flags:
        """Set flags in this loop from now on, also for what was asked for before."""
        self._loop, self._flags, self._log = asyncio.get_running_loop(), Flags(), log
        self._pass_on()
        return self._flags

    def _asked(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._stop = signal.Signals(number)
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        if self._flags is None or self._log is None:
            return
        stop, self._stop = self._stop, None
        reload, self._reload = self._reload, False
        if stop:
            self._flags.stop.set()
            self._log.info(events.STOPPING, signal=stop.name)
        if reload:
            self._flags.reload.set()


def handle_signals(log: Log, signal_handlers: SignalHandlers | None = None) -> Flags:
    """SIGTERM and Ctrl-C ask to stop; SIGHUP to read the policy file and reopen the record."""
    return (signal_handlers or SignalHandlers()).obeyed(log)
