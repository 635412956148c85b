"""Signals set flags and do nothing else; what they request happens between terminations."""

import asyncio
import signal
from dataclasses import dataclass, field
from types import FrameType

from reaper.service.pause import Flag
from reaper.telemetry import events
from reaper.telemetry.log import Log


@dataclass(frozen=True, slots=True)
class Flags:
    """Requests that arrived as signals."""

    stop: Flag = field(default_factory=Flag)
    reload: Flag = field(default_factory=Flag)


class SignalHandlers:
    """Handles SIGTERM, SIGINT and SIGHUP from now to the end of the process, with or without an event loop.

    The default handlers would end the process with the signal's number, on SIGHUP too, and the handlers of an
    event loop are removed with the loop, while the last log lines are still being written.
    """

    def __init__(self) -> None:
        self._stop: signal.Signals | None = None
        self._reload = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flags: Flags | None = None
        self._log: Log | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Not loop.add_signal_handler: a signal before the loop runs would end the process.
            signal.signal(number, self._received)

    def attach(self, log: Log) -> Flags:
        """Set flags in the running loop from now on, for signals that came earlier too."""
        self._loop, self._flags, self._log = asyncio.get_running_loop(), Flags(), log
        self._set_flags()
        return self._flags

    def _received(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._stop = signal.Signals(number)
        # The handler may run between any two bytecodes: flags are set only by the loop.
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set_flags)

    def _set_flags(self) -> None:
        if self._flags is None or self._log is None:
            return
        stop, self._stop = self._stop, None
        reload, self._reload = self._reload, False
        if stop:
            self._flags.stop.set()
            self._log.info(events.STOPPING, signal=stop.name)
        if reload:
            self._flags.reload.set()


def handle_signals(log: Log, handlers: SignalHandlers | None = None) -> Flags:
    """Flags that SIGTERM and Ctrl-C (stop) and SIGHUP (reload the policy file, reopen the audit log) set."""
    return (handlers or SignalHandlers()).attach(log)
